//! The messages, the client and the server that are generated from the proto. Both ends are the same binary.

tonic::include_proto!("artel.engine.v1");
