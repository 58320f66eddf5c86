//! The rules of feeds, judged: scripted histories with their outcome, and random ones with invariants.

mod history;
mod records;
mod scale;
mod tree;
mod vectors;
mod world;
