//! The Redis adapters keep the promises of their ports.
