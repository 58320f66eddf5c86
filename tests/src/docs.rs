//! Reading documents: their code blocks, their links, and running what they show as a reader would.
//!
//! `docs/hacking.md` tells writers the convention.

mod session;
mod text;

pub use session::{Home, Session};
pub use text::{Block, Document, blocks, links, matches, mentions, same_shape, slug};
