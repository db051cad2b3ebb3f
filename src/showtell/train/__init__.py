"""Training: recipes, inputs, objectives, the loop, and the folder of a run"""
