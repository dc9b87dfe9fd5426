"""How long a mapped network takes: events between cores, routes on the mesh, time of every step."""
