"""What routing policies share: the contract, the pick, the state of a router, and rules that several build on."""
