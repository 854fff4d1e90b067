"""Everything that touches a socket: nothing above this floor imports socket, ssl or errno."""
