# api/execd/
