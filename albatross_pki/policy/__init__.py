"""The rules: what a policy, a constraint and a chain of certificates allow. Pure: no file, socket, process or clock."""
