//! Scripted histories with their outcome.

use meshwork_protocol::id::DirId;

use super::{
    tree::{Shows, Tree, file, flat, tagged_file},
    world::{Plant, World},
};

const D: DirId = DirId([0xd0; 16]);
const E: DirId = DirId([0xe0; 16]);

/// Two replicas that write, deliver and place as told.
struct Script(World);

impl Script {
    fn new(start: impl FnOnce(&mut Tree)) -> Script {
        let mut script = Script(World::new(2, Plant::None));
        script.edit(0, start);
        script.meet();
        script
    }

    fn edit(&mut self, at: usize, change: impl FnOnce(&mut Tree)) {
        assert!(self.0.user(at, change).unwrap(), "the edit changed nothing");
    }

    /// Both edit without knowing of each other, then both know and show everything.
    fn both(&mut self, one: impl FnOnce(&mut Tree), other: impl FnOnce(&mut Tree)) {
        self.edit(0, one);
        self.edit(1, other);
        self.meet();
    }

    fn meet(&mut self) {
        self.0.finish().unwrap();
    }

    /// Paths, a directory as `path/`, a file as `path=content number`.
    fn shows(&self) -> String {
        let tree = flat(&self.0.replicas[0].feed.map().view());
        let lines = tree.into_iter().map(|(path, shows)| {
            let path: Vec<String> = path.iter().map(ToString::to_string).collect();
            match shows {
                Shows::Dir => format!("{}/", path.join("/")),
                Shows::File { content, .. } => format!("{}={}", path.join("/"), content.as_bytes()[31]),
            }
        });
        lines.collect::<Vec<_>>().join(", ")
    }
}

#[track_caller]
fn expect(script: &Script, shows: &str) {
    assert_eq!(script.shows(), shows, "\n  {}", script.0.log.join("\n  "));
}

#[test]
fn t1_what_the_disk_did_not_show_is_not_replaced() {
    let mut script = Script(World::new(2, Plant::None));
    script.edit(0, |tree| tree.write("f", file(1)));
    script.0.sync(0, 1).unwrap();
    script.edit(1, |tree| tree.write("f", file(2)));
    script.meet();
    expect(&script, "f=2, f (conflict 00000001)=1");
}

#[test]
fn t4_deleting_the_winner_does_not_rename_the_loser() {
    let mut script = Script::new(|tree| tree.write("x", file(9)));
    script.both(|tree| tree.write("f", file(1)), |tree| tree.write("f", file(2)));
    expect(&script, "f=2, f (conflict 00000001)=1, x=9");
    script.edit(0, |tree| drop(tree.remove("f")));
    script.meet();
    expect(&script, "f (conflict 00000001)=1, x=9");
    let map = script.0.replicas[1].feed.map();
    let real = map.iter().flatten().filter(|operation| operation.value.file().is_some());
    let keys: Vec<String> = real.map(|operation| operation.key.name.to_string()).collect();
    assert_eq!(keys, ["f (conflict 00000001)", "x"]);
}

/// A directory that one deleted while the other put `x` into it.
fn deleted_and_filled() -> Script {
    let mut script = Script::new(|tree| {
        tree.make_dir("D", D);
        tree.write("D/f", file(1));
    });
    script.both(|tree| drop(tree.remove("D")), |tree| tree.write("D/x", file(2)));
    script
}

#[test]
fn case_34_what_was_not_seen_survives_and_brings_its_directory_back() {
    expect(&deleted_and_filled(), "D/, D/x=2");
}

#[test]
fn t5_a_directory_that_is_back_stays_without_its_last_file() {
    let mut script = deleted_and_filled();
    script.edit(0, |tree| tree.rename("D/x", "x"));
    script.meet();
    expect(&script, "D/, x=2");
}

#[test]
fn t5_a_recovered_directory_stays_too() {
    let mut script = deleted_and_filled();
    // The tombstone that remembers the place goes, as an author may drop it at a checkpoint.
    for replica in &mut script.0.replicas {
        let map = replica.feed.map_mut();
        let key = map.placements_of(D).first().map(|operation| operation.key.clone());
        assert_eq!(key, None);
        let tombstone = map.former_of(D)[0].key.clone();
        map.set_key(tombstone.clone(), Vec::new());
        replica.disk.set_key(tombstone, Vec::new());
    }
    expect(&script, "Recovered d0d0d0d0/, Recovered d0d0d0d0/x=2");
    let view = script.0.replicas[0].disk.view();
    let viewed = Tree::of(&view);
    let mut tree = viewed.clone();
    tree.rename("Recovered d0d0d0d0/x", "x");
    let operations = crate::feed::diff(view.map(), view.map(), &tree.edits(&viewed)).unwrap();
    let kept = operations.iter().find(|operation| operation.value.dirs() == [D]).unwrap();
    assert_eq!(kept.key.name.to_string(), "Recovered d0d0d0d0");
}

#[test]
fn t6_a_former_place_keeps_its_date() {
    let mut script = Script::new(|tree| {
        tree.make_dir("a", D);
        tree.make_dir("b", E);
        tree.write("a/1", file(1));
    });
    script.edit(0, |tree| tree.swap("a", "b"));
    script.meet();
    expect(&script, "a/, b/, b/1=1");
    script.both(|tree| drop(tree.remove("a")), |tree| tree.write("a/x", file(2)));
    expect(&script, "a/, a/x=2, b/, b/1=1");
    script.edit(0, |tree| tree.rename("b", "c"));
    script.meet();
    expect(&script, "a/, a/x=2, c/, c/1=1");
}

#[test]
fn t7_a_directory_moved_twice_follows_the_next_move_whole() {
    let mut script = Script::new(|tree| tree.make_dir("D", D));
    script.both(|tree| tree.rename("D", "E"), |tree| tree.rename("D", "F"));
    expect(&script, "F/");
    script.edit(0, |tree| tree.rename("F", "G"));
    script.meet();
    expect(&script, "G/");
    let placements: Vec<String> = script.0.replicas[1]
        .feed
        .map()
        .placements_of(D)
        .iter()
        .map(|operation| operation.key.name.to_string())
        .collect();
    assert_eq!(placements, ["G"]);
}

#[test]
fn t8_dissolving_a_cycle_moves_nobody_else() {
    let mut script = Script::new(|tree| {
        tree.make_dir("x", D);
        tree.make_dir("y", E);
    });
    script.both(|tree| tree.rename("x", "y/x"), |tree| tree.rename("y", "x/y"));
    expect(&script, "x/, x/y/");
    script.edit(0, |tree| tree.rename("x/y", "z"));
    script.meet();
    expect(&script, "x/, z/");
}

#[test]
fn t8_dissolving_a_longer_cycle_from_elsewhere_moves_nobody_else() {
    let mut script = Script::new(|tree| {
        tree.make_dir("x", D);
        tree.make_dir("y", E);
        tree.make_dir("z", DirId([0xf0; 16]));
    });
    let chain = |tree: &mut Tree| {
        tree.rename("y", "z/y");
        tree.rename("z", "x/z");
    };
    script.both(|tree| tree.rename("x", "y/x"), chain);
    expect(&script, "x/, x/z/, x/z/y/");
    // Neither end of this move is in the directory that the cycle had put back.
    script.edit(0, |tree| tree.rename("x/z/y", "w"));
    script.meet();
    expect(&script, "w/, x/, x/z/");
}

#[test]
fn t9_a_loser_past_a_taken_name_stays_where_it_is() {
    let mut script = Script::new(|tree| tree.write("f (conflict 00000005)", file(9)));
    script.both(|tree| tree.write("f", tagged_file(5, 1)), |tree| tree.write("f", file(2)));
    let doubled = "f (conflict 00000005) (conflict 00000005)=1";
    expect(&script, &format!("f=2, f (conflict 00000005)=9, {doubled}"));
    script.edit(0, |tree| drop(tree.remove("f (conflict 00000005)")));
    script.meet();
    expect(&script, &format!("f=2, {doubled}"));
}

#[test]
fn t10_a_file_over_a_directory_with_an_unseen_child() {
    let mut script = Script::new(|tree| tree.make_dir("D", D));
    script.both(|tree| tree.write("D", file(1)), |tree| tree.write("D/x", file(2)));
    expect(&script, "D=1, D (conflict d0d0d0d0)/, D (conflict d0d0d0d0)/x=2");
}

#[test]
fn t11_a_directory_made_twice_is_one_and_moves_as_one() {
    let mut script = Script::new(|tree| tree.write("f", file(1)));
    let make = |tree: &mut Tree, dir, name, number| {
        tree.make_dir("D", dir);
        tree.write(&format!("D/{name}"), file(number));
    };
    script.both(|tree| make(tree, D, "x", 2), |tree| make(tree, E, "y", 3));
    expect(&script, "D/, D/x=2, D/y=3, f=1");
    let before = script.0.operations;
    script.edit(0, |tree| tree.rename("D", "G"));
    assert_eq!(script.0.operations - before, 2);
    script.meet();
    expect(&script, "G/, G/x=2, G/y=3, f=1");
}

#[test]
fn t11_a_move_of_one_half_leaves_each_id_one_place() {
    let mut script = Script::new(|tree| tree.write("f", file(1)));
    script.edit(0, |tree| tree.make_dir("D", D));
    script.0.sync(0, 1).unwrap();
    script.edit(1, |tree| tree.make_dir("D", E));
    script.edit(0, |tree| tree.rename("D", "G"));
    script.edit(0, |tree| tree.write("G/x", file(2)));
    script.meet();
    expect(&script, "D/, G/, G/x=2, f=1");
}

#[test]
fn t12_deleted_and_made_again_while_filled() {
    let mut script = Script::new(|tree| tree.make_dir("D", D));
    let again = |tree: &mut Tree| {
        tree.remove("D");
        tree.make_dir("D", E);
    };
    script.both(again, |tree| tree.write("D/x", file(1)));
    expect(&script, "D/, D/x=1");
}

#[test]
fn t13_an_edit_survives_a_delete() {
    let mut script = Script::new(|tree| tree.write("f", file(1)));
    script.both(|tree| drop(tree.remove("f")), |tree| tree.write("f", file(2)));
    expect(&script, "f=2");
}

#[test]
fn t14_a_rename_survives_a_delete() {
    let mut script = Script::new(|tree| tree.write("f", file(1)));
    script.both(|tree| drop(tree.remove("f")), |tree| tree.rename("f", "g"));
    expect(&script, "g=1");
    let mut script = Script::new(|tree| {
        tree.make_dir("D", D);
        tree.write("D/f", file(1));
    });
    script.both(|tree| drop(tree.remove("D")), |tree| tree.rename("D", "E"));
    expect(&script, "E/");
}

#[test]
fn t15_a_rename_and_an_edit_are_two_files() {
    let mut script = Script::new(|tree| tree.write("f", file(1)));
    script.both(|tree| tree.rename("f", "g"), |tree| tree.write("f", file(2)));
    expect(&script, "f=2, g=1");
}

#[test]
fn case_6_equal_contents_are_no_conflict() {
    let mut script = Script::new(|tree| tree.write("f", file(1)));
    let mut newer = file(5);
    newer.modified_ns = 77;
    script.both(|tree| tree.write("g", file(5)), |tree| tree.write("g", newer));
    expect(&script, "f=1, g=5");
}

#[test]
fn case_35_deleted_and_made_again_against_an_edit_is_a_conflict() {
    let mut script = Script::new(|tree| tree.write("f", file(1)));
    script.edit(0, |tree| drop(tree.remove("f")));
    script.both(|tree| tree.write("f", file(2)), |tree| tree.write("f", file(3)));
    expect(&script, "f=2, f (conflict 00000003)=3");
}

#[test]
fn t18_of_two_twins_each_user_keeps_another() {
    let conflict = "f (conflict 00000001)";
    let mut script = Script::new(|tree| tree.write("x", file(9)));
    script.both(|tree| tree.write("f", file(1)), |tree| tree.write("f", file(2)));
    // One moves the loser over the winner, the other writes over the winner: a twin at either name.
    let over = |tree: &mut Tree| {
        tree.remove("f");
        tree.rename(conflict, "f");
    };
    script.both(over, |tree| tree.write("f", file(3)));
    expect(&script, &format!("f=3, {conflict}=1, x=9"));
    script.both(over, |tree| drop(tree.remove("f")));
    expect(&script, &format!("f=1, {conflict}=1, x=9"));
}
