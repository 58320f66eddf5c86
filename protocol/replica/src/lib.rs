pub mod feed;
pub mod folder;
pub mod graph;
pub mod replica;
pub mod sync;
pub mod transfer;
