"""How tasks are computed: here, in worker processes, on a Ray cluster; none of them twice."""
