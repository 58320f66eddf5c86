use std::{fs, os::unix::fs::MetadataExt};

use super::*;
use crate::disk::{
    chunk::{Content, cut_reader},
    testing::{Fixture, convergence, noise},
};

fn cut(bytes: &[u8]) -> Content {
    cut_reader(&mut &bytes[..], 16, bytes.len() as u64, &convergence).unwrap()
}

fn open(folder: &Fixture, content: &Content) -> Incoming {
    Incoming::open(&folder.root, content.id, content.chunks.clone(), &convergence).unwrap()
}

/// Writes the chunks of these numbers.
fn write(incoming: &mut Incoming, bytes: &[u8], numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        let start: usize = incoming.chunks()[..number].iter().map(|chunk| chunk.len as usize).sum();
        let len = incoming.chunks()[number].len as usize;
        incoming.write(number, &bytes[start..start + len], &convergence).unwrap();
    }
}

#[test]
fn chunks_come_in_any_order() {
    let folder = Fixture::new();
    let bytes = noise(1_000_000, 1);
    let content = cut(&bytes);
    let mut incoming = open(&folder, &content);
    let count = content.chunks.len();
    write(&mut incoming, &bytes, (1..count).rev());
    assert_eq!(incoming.missing().collect::<Vec<_>>(), [0]);
    write(&mut incoming, &bytes, [0]);
    incoming.finish().unwrap();
    assert_eq!(folder.read(&format!(".meshwork/temp/{}.part", content.id)), bytes);
}

#[test]
fn wrong_bytes_are_not_taken() {
    let folder = Fixture::new();
    let bytes = noise(300_000, 2);
    let content = cut(&bytes);
    let mut incoming = open(&folder, &content);
    let len = content.chunks[0].len as usize;
    let mut wrong = bytes[..len].to_vec();
    wrong[7] ^= 1;
    assert_eq!(incoming.write(0, &wrong, &convergence), Err(IncomingError::WrongChunk));
    assert_eq!(incoming.write(0, &bytes[..len - 1], &convergence), Err(IncomingError::WrongChunk));
    assert_eq!(incoming.write(99, &bytes, &convergence), Err(IncomingError::NoSuchChunk));
    let count = content.chunks.len();
    assert_eq!(incoming.finish(), Err(IncomingError::Incomplete(count)));
}

#[test]
fn a_list_of_chunks_that_is_not_the_content_is_found_out() {
    let folder = Fixture::new();
    let bytes = noise(100, 3);
    let content = cut(&bytes);
    let mut incoming = Incoming::open(&folder.root, ContentId([5; 32]), content.chunks.clone(), &convergence).unwrap();
    write(&mut incoming, &bytes, [0]);
    assert_eq!(incoming.finish(), Err(IncomingError::WrongContent));
}

#[test]
fn a_stopped_transfer_goes_on_with_what_is_whole() {
    let folder = Fixture::new();
    let bytes = noise(2_000_000, 4);
    let content = cut(&bytes);
    let count = content.chunks.len();
    assert!(count > 8);
    let mut incoming = open(&folder, &content);
    write(&mut incoming, &bytes, 0..count - 2);
    drop(incoming);
    // A crash may tear any page and cut the end.
    let part = folder.full(&format!(".meshwork/temp/{}.part", content.id));
    let mut stored = fs::read(&part).unwrap();
    let third: usize = content.chunks[..3].iter().map(|chunk| chunk.len as usize).sum();
    stored[third + 5] ^= 1;
    let short: usize = content.chunks[..6].iter().map(|chunk| chunk.len as usize).sum();
    stored.truncate(short + 10);
    fs::write(&part, &stored).unwrap();

    let mut incoming = open(&folder, &content);
    let missing: Vec<usize> = incoming.missing().collect();
    assert_eq!(missing, [3].into_iter().chain(6..count).collect::<Vec<_>>());
    write(&mut incoming, &bytes, missing);
    incoming.finish().unwrap();
    assert_eq!(fs::read(&part).unwrap(), bytes);
}

#[test]
fn zeros_stay_holes_and_stale_bytes_do_not_show_through() {
    let folder = Fixture::new();
    let mut bytes = vec![0; 4_000_000];
    bytes[1_000_000..1_100_000].copy_from_slice(&noise(100_000, 5));
    let content = cut(&bytes);
    let part = folder.full(&format!(".meshwork/temp/{}.part", content.id));
    let mut incoming = open(&folder, &content);
    write(&mut incoming, &bytes, 0..content.chunks.len());
    incoming.finish().unwrap();
    assert_eq!(fs::read(&part).unwrap(), bytes);
    assert!(fs::metadata(&part).unwrap().blocks() * 512 <= 512 * 1024, "most of it takes no room");

    fs::write(&part, vec![0xaa; 5_000_000]).unwrap();
    let mut incoming = open(&folder, &content);
    assert_eq!(incoming.missing().count(), content.chunks.len());
    write(&mut incoming, &bytes, 0..content.chunks.len());
    incoming.finish().unwrap();
    assert_eq!(fs::read(&part).unwrap(), bytes);
}

#[test]
fn a_linked_part_is_never_written_to() {
    let folder = Fixture::new();
    let bytes = noise(100, 6);
    let content = cut(&bytes);
    folder.write("mine", "mine");
    let part = folder.full(&format!(".meshwork/temp/{}.part", content.id));
    fs::hard_link(folder.full("mine"), &part).unwrap();
    write(&mut open(&folder, &content), &bytes, [0]);
    assert_eq!(folder.read("mine"), b"mine");
    fs::remove_file(&part).unwrap();
    std::os::unix::fs::symlink(folder.full("mine"), &part).unwrap();
    assert!(Incoming::open(&folder.root, content.id, content.chunks.clone(), &convergence).is_err());
    assert_eq!(folder.read("mine"), b"mine");
    discard(&folder.root, content.id).unwrap();
    assert_eq!(folder.temps(), Vec::<String>::new());
}

#[test]
fn a_full_disk_is_reported() {
    let error = IncomingError::Disk(Errno::NOSPC);
    assert!(error.to_string().contains("could not be written"));
}
