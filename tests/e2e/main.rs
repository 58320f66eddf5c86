//! Two devices as real processes on loopback.

mod folder;
mod pairing;
mod refusal;
mod secrecy;
