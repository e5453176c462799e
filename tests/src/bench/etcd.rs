//! What `tests/proto/etcd.proto` compiles to.

#![allow(clippy::all, reason = "generated code")]

tonic::include_proto!("etcdserverpb");
