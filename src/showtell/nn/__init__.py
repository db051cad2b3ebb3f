"""The torch networks: encoders, decoders, and their weights"""
