"""What tests share: brokers, programs, simulated adapters, ledgers."""
