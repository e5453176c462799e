//! Tests of the whole system: they start real processes on hosts made of namespaces.

#![forbid(unsafe_code)]
