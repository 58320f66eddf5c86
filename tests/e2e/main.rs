//! Two devices as real processes on loopback.

mod authority;
mod compaction;
mod copies;
mod folder;
mod install;
mod lost;
mod pairing;
mod recovery;
mod refusal;
mod rendezvous;
mod secrecy;
mod services;
mod sharing;
mod tickets;
