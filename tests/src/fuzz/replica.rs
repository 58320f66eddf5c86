//! Two real replicas and a member that misbehaves, driven by a program of inputs.
//!
//! Between any two inputs frames may be lost, doubled, altered or invented, stores may fail, disks may refuse, and
//! processes may die. In the end all is healed, and both replicas must come to hold the same.

mod hostile;
mod mesh;
mod scene;
mod side;

use meshwork_protocol::time::Timestamp;

use self::{hostile::Hostile, mesh::Mesh, scene::scene};
use super::program::{Program, part};

const STEPS: usize = 120;

/// Does one thing; what it is, the program decides.
fn step(program: &mut Program<'_>, mesh: &mut Mesh, hostile: &mut Hostile) {
    let side = program.below(2);
    match program.below(20) {
        0..=3 => mesh.deliver(side, |_| {}),
        4 => {
            let (at, mask) = (program.number() as usize, program.byte());
            mesh.deliver(side, |bytes| flip(bytes, at, mask));
        }
        5 => mesh.lose(side),
        6 => {
            let sent = program.below(256);
            mesh.replay(side, sent, |_| {});
        }
        7 => {
            let (sent, at, mask) = (program.below(256), program.number() as usize, program.byte());
            mesh.replay(side, sent, |bytes| flip(bytes, at, mask));
        }
        8 => {
            let bytes = program.part().to_vec();
            mesh.frame(side, 1 - side, bytes);
        }
        9..=11 => hostile.speak(program, mesh),
        12 | 13 => mesh.sides[side].user(program),
        14 => {
            let ahead = if program.once_in(8) { 3_600_000_000 } else { u64::from(program.byte()) * 20_000 };
            mesh.now = Timestamp(mesh.now.0 + ahead);
            mesh.tick();
        }
        15 => mesh.stored(side, program.once_in(12)),
        16 => mesh.work(side, program),
        17 => mesh.fetched(side, program),
        18 if program.once_in(3) => mesh.restart(side),
        18 => mesh.connect(!program.once_in(2)),
        _ => mesh.stray(side, program),
    }
    mesh.follow();
}

fn flip(bytes: &mut [u8], at: usize, mask: u8) {
    let len = bytes.len().max(1);
    bytes.iter_mut().skip(at % len).take(1).for_each(|byte| *byte ^= mask);
}

/// Runs a program: what has become of the mesh, and how often a state changed before it was healed.
fn play(bytes: &[u8]) -> (Mesh, usize) {
    let mut program = Program::new(bytes);
    let (mut mesh, mut hostile) = scene();
    for _ in 0..STEPS {
        if program.is_over() {
            break;
        }
        step(&mut program, &mut mesh, &mut hostile);
    }
    let grew = mesh.grew;
    mesh.heal();
    (mesh, grew)
}

/// Runs a program.
pub(super) fn run(bytes: &[u8]) -> bool {
    play(bytes).1 > 0
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // Both users write; everything is delivered, stored and read.
    let busy = [[0, 12, 0, 0, 5], [1, 12, 1, 0, 6]].concat();
    let round = [0, 16, 0, 1, 16, 0, 0, 15, 0, 1, 15, 0, 0, 0, 1, 0, 0, 14, 0, 3, 0, 17, 0, 1, 17, 0];
    let quiet = [busy.as_slice(), &round.repeat(6)].concat();
    let raw = [&[0, 8], part(&[0x81, 9]).as_slice(), &[1, 8], &part(&[0x82, 8, 0])].concat();
    let mut seeds = vec![quiet, raw];
    seeds.extend((0..24).map(|seed: u8| super::mutate::bytes(seed, 80 + usize::from(seed) * 20)));
    seeds
}

#[cfg(test)]
mod tests {
    use meshwork_protocol::{id::ObjectId, object::Verified};
    use meshwork_replica::replica::Stored;

    use super::*;
    use crate::fuzz::mutate::Mutator;

    /// A member whose every word is refused would test the signature only.
    #[test]
    fn what_the_third_says_is_taken_in_and_carried_on() {
        let (mut mutator, seeds) = (Mutator::new(2), seeds());
        let (mut files, mut graph, mut statements) = (0, 0, 0);
        for _ in 0..300 {
            let (mesh, _) = play(&mutator.next(&seeds));
            let second = &mesh.sides[1].kept.log;
            let records = second.iter().filter_map(|stored| match stored {
                Stored::Record { object, bytes, .. } => Some((*object, Verified::trusted(bytes.clone()).ok()?)),
                Stored::Control { .. } | Stored::Retired { .. } => None,
            });
            for (object, _) in records.filter(|(_, record)| record.author() == mesh.third) {
                files += usize::from(object == mesh.folder);
                graph += usize::from(object == ObjectId::from(mesh.mesh));
            }
            let logs = mesh.sides[1].replica.control().logs();
            let by_third = logs.flat_map(|log| log.entries()).filter(|entry| entry.author() == mesh.third.into());
            // It tells its key once.
            statements += by_third.count() - 1;
        }
        println!("{files} records of files, {graph} of the graph, {statements} statements");
        assert!(files >= 10 && graph >= 10 && statements >= 5);
    }
}
