use std::fs;

use meshwork_protocol::id::ChunkId;

use super::*;
use crate::disk::testing::{Fixture, convergence, path};

fn chunk(bytes: &[u8]) -> ChunkRef {
    ChunkRef { id: convergence(blake3::hash(bytes).as_bytes()), len: bytes.len() as u32 }
}

#[test]
fn only_the_very_chunk_is_served() {
    let folder = Fixture::new();
    folder.write("a", "0123456789");
    let source = Source::open(&folder.root, &path("a")).unwrap();
    assert_eq!(source.chunk(2, &chunk(b"234"), &convergence), Ok(b"234".to_vec()));
    assert_eq!(source.chunk(3, &chunk(b"234"), &convergence), Err(ReadError::Gone));
    assert_eq!(source.chunk(8, &chunk(b"89a"), &convergence), Err(ReadError::Gone), "past the end");
    assert!(source.chunk(u64::MAX, &chunk(b"1"), &convergence).is_err());
    let huge = ChunkRef { id: ChunkId([0; 32]), len: u32::MAX };
    assert_eq!(source.chunk(0, &huge, &convergence), Err(ReadError::Gone), "and nothing is allocated for it");

    fs::write(folder.full("a"), "01x3456789").unwrap();
    assert_eq!(source.chunk(2, &chunk(b"234"), &convergence), Err(ReadError::Gone), "the file changed");
}

#[test]
fn what_is_no_file_is_gone() {
    let folder = Fixture::new();
    folder.write("a", "x");
    std::os::unix::fs::symlink("a", folder.full("l")).unwrap();
    fs::create_dir(folder.full("d")).unwrap();
    for name in ["absent", "l", "d", "a/b"] {
        assert_eq!(Source::open(&folder.root, &path(name)).map(|_| ()), Err(ReadError::Gone), "{name}");
    }
}
