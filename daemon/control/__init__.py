"""The control socket: varlink framing, server and client."""
