"""The state of an installation: `findings` lists it, `probes` try out in a process of their own what may end one."""
