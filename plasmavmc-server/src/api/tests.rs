//! Calls against a store in memory.
