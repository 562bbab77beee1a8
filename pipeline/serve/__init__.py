"""The server that production gateways ask: Lodestar's gateway, llm-d's endpoint picker, and a native endpoint."""
