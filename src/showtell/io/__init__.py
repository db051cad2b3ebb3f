"""HTML pages that open from disk, and robust standard streams"""
