//! Random histories of two to four replicas, judged at every step.

use meshwork_protocol::id::DirId;
use serde_bytes::ByteBuf;

use super::{
    tree::{Item, Tree, name, tagged_file},
    world::{Judged, Plant, World},
};
use crate::feed::{FileKind, FileValue, Name, symlink_content};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        (!items.is_empty()).then(|| self.below(items.len())).map(|index| &items[index])
    }
}

/// What one history is made of.
struct Settings {
    names: Vec<Name>,
    /// Contents share few tags, so that conflict names collide.
    narrow: bool,
    several_actions: bool,
    partial_placing: bool,
    weights: [usize; 3],
    steps: usize,
}

impl Settings {
    fn draw(random: &mut Random) -> Settings {
        let long = ["n".repeat(255), format!("{}.x", "é".repeat(126)), format!("a.{}", "x".repeat(250))];
        let names = match random.below(12) {
            0 => long.iter().map(|text| name(text)).collect(),
            _ => ["f", "g.txt", "h", ".i"][..2 + random.below(3)].iter().map(|text| name(text)).collect(),
        };
        Settings {
            names,
            narrow: random.one_in(3),
            several_actions: random.one_in(3),
            partial_placing: random.one_in(3),
            weights: [1 + random.below(8), 1 + random.below(12), 1 + random.below(6)],
            steps: 10 + random.below(70),
        }
    }
}

struct User<'a> {
    random: &'a mut Random,
    settings: &'a Settings,
    contents: &'a mut u32,
    dirs: &'a mut u32,
}

impl User<'_> {
    fn act(&mut self, tree: &mut Tree) {
        let actions = if self.settings.several_actions { 1 + self.random.below(3) } else { 1 };
        for _ in 0..actions {
            // An action may find nothing to act on; then another is tried.
            let _ = (0..20).any(|_| self.try_one(tree));
        }
    }

    fn try_one(&mut self, tree: &mut Tree) -> bool {
        match self.random.below(16) {
            0..=2 => self.write_new(tree),
            3..=4 => self.rewrite(tree),
            5..=6 => self.remove(tree),
            7..=8 => self.make_dir(tree),
            9..=13 => self.rename(tree),
            14 => self.swap(tree),
            _ => self.change_attributes(tree),
        }
    }

    fn some_dir(&mut self, tree: &Tree) -> usize {
        let reached = tree.reached();
        let dirs: Vec<usize> = (0..tree.nodes.len()).filter(|node| reached[*node]).collect();
        *self.random.pick(&dirs).unwrap()
    }

    fn some_entry(&mut self, tree: &Tree) -> Option<(usize, Name)> {
        let node = self.some_dir(tree);
        let names: Vec<&Name> = tree.nodes[node].keys().collect();
        Some((node, (*self.random.pick(&names)?).clone()))
    }

    fn some_name(&mut self) -> Name {
        if self.random.one_in(16) {
            return name(&format!("f (conflict {:08x})", self.random.below(4)));
        }
        self.random.pick(&self.settings.names).unwrap().clone()
    }

    fn some_file(&mut self) -> FileValue {
        // An old content again, or a new one.
        let number = if self.random.one_in(6) {
            self.random.below(*self.contents as usize + 1) as u32
        } else {
            *self.contents + 1
        };
        *self.contents = number.max(*self.contents);
        let mut file = tagged_file(if self.settings.narrow { number % 3 } else { number }, number);
        file.executable = self.random.one_in(8);
        file.modified_ns = self.random.below(3) as i64;
        if number % 7 == 0 {
            let target = number.to_string().into_bytes();
            file.content = symlink_content(&target);
            file.kind = FileKind::Symlink { target: ByteBuf::from(target) };
        }
        file
    }

    fn write_new(&mut self, tree: &mut Tree) -> bool {
        let (node, name) = (self.some_dir(tree), self.some_name());
        let free = !tree.nodes[node].contains_key(&name);
        if free {
            tree.nodes[node].insert(name, Item::File(self.some_file()));
        }
        free
    }

    fn rewrite(&mut self, tree: &mut Tree) -> bool {
        let Some((node, name)) = self.some_entry(tree) else {
            return false;
        };
        let is_file = matches!(tree.nodes[node].get(&name), Some(Item::File(_)));
        // Now and then a file takes the place of a directory.
        let does = is_file || self.random.one_in(6);
        if does {
            tree.nodes[node].insert(name, Item::File(self.some_file()));
        }
        does
    }

    fn change_attributes(&mut self, tree: &mut Tree) -> bool {
        let Some((node, name)) = self.some_entry(tree) else {
            return false;
        };
        let Some(Item::File(file)) = tree.nodes[node].get_mut(&name) else {
            return false;
        };
        file.executable ^= self.random.one_in(2);
        file.modified_ns = self.random.below(4) as i64;
        true
    }

    fn remove(&mut self, tree: &mut Tree) -> bool {
        let Some((node, name)) = self.some_entry(tree) else {
            return false;
        };
        tree.nodes[node].remove(&name).is_some()
    }

    fn make_dir(&mut self, tree: &mut Tree) -> bool {
        let (node, name) = (self.some_dir(tree), self.some_name());
        let free = !tree.nodes[node].contains_key(&name) && tree.nodes.len() < 14;
        if free {
            *self.dirs += 1;
            let mut dir = [0; 16];
            let prefix = if self.settings.narrow { *self.dirs % 2 } else { self.dirs.wrapping_mul(0x9e37_79b9) };
            dir[..4].copy_from_slice(&prefix.to_be_bytes());
            dir[4..8].copy_from_slice(&self.dirs.wrapping_mul(0x85eb_ca6b).to_be_bytes());
            tree.add_dir(node, name, DirId(dir));
        }
        free
    }

    fn rename(&mut self, tree: &mut Tree) -> bool {
        let Some((from, old)) = self.some_entry(tree) else {
            return false;
        };
        let (to, new) = (self.some_dir(tree), self.some_name());
        if let Item::Dir(moved) = tree.nodes[from][&old]
            && tree.inside(moved)[to]
        {
            return false;
        }
        let over = match (&tree.nodes[from][&old], tree.nodes[to].get(&new)) {
            (_, None) => true,
            (Item::File(_), Some(Item::File(_))) => (from, &old) != (to, &new),
            _ => false,
        };
        if over && let Some(item) = tree.nodes[from].remove(&old) {
            tree.nodes[to].insert(new, item);
        }
        over
    }

    fn swap(&mut self, tree: &mut Tree) -> bool {
        let (Some((at, one)), Some((to, other))) = (self.some_entry(tree), self.some_entry(tree)) else {
            return false;
        };
        let holds = |item: &Item, node: usize| matches!(item, Item::Dir(dir) if tree.inside(*dir)[node]);
        if (at, &one) == (to, &other) || holds(&tree.nodes[at][&one], to) || holds(&tree.nodes[to][&other], at) {
            return false;
        }
        let (left, right) = (tree.nodes[at].remove(&one).unwrap(), tree.nodes[to].remove(&other).unwrap());
        tree.nodes[at].insert(one, right);
        tree.nodes[to].insert(other, left);
        true
    }
}

fn run(seed: u64, plant: Plant) -> (Judged, World) {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let settings = Settings::draw(&mut random);
    let mut world = World::new(2 + random.below(3), plant);
    let (mut contents, mut dirs) = (0, 0);
    let mut go = |world: &mut World| -> Judged {
        for _ in 0..settings.steps {
            if world.records.len() > 110 {
                break;
            }
            let at = random.below(world.replicas.len());
            let [user, deliver, place] = settings.weights;
            let choice = random.below(user + deliver + place);
            if choice < user {
                let mut user =
                    User { random: &mut random, settings: &settings, contents: &mut contents, dirs: &mut dirs };
                world.user(at, |tree| user.act(tree))?;
            } else if choice < user + deliver {
                deliver_some(world, &mut random, at)?;
            } else if random.one_in(4) {
                let all = random.one_in(3);
                world.checkpoint(at, all)?;
            } else {
                let partial = settings.partial_placing;
                world.place(at, |_| !partial || random.one_in(2));
            }
            if random.one_in(4) {
                let at = random.below(world.replicas.len());
                world.judge_newcomer(at, |choices| random.below(choices))?;
            }
        }
        world.finish()?;
        // The newest checkpoint of each chain, and everybody's own choice.
        (0..world.replicas.len()).try_for_each(|at| world.judge_newcomer(at, |choices| choices - 1))
    };
    (go(&mut world), world)
}

fn deliver_some(world: &mut World, random: &mut Random, from: usize) -> Judged {
    let to = random.below(world.replicas.len());
    if from == to {
        return Ok(());
    }
    if random.one_in(3) {
        return world.sync(from, to);
    }
    match random.pick(&world.ready(from, to)) {
        Some(record) => world.deliver(to, *record),
        None => Ok(()),
    }
}

/// Some thousand histories; more with `MESHWORK_FEED_SEEDS=first..end`.
#[test]
fn random_histories_keep_every_promise() {
    let range = std::env::var("MESHWORK_FEED_SEEDS").unwrap_or_else(|_| "0..2000".into());
    let (first, end) = range.split_once("..").expect("first..end");
    let (first, end): (u64, u64) = (first.parse().unwrap(), end.parse().unwrap());
    let (mut records, mut operations, mut checkpoints) = (0, 0, 0);
    for seed in first..end {
        let (judged, world) = run(seed, Plant::None);
        if let Err(verdict) = judged {
            panic!("seed {seed}: {verdict}\n  {}", world.log.join("\n  "));
        }
        records += world.records.len();
        operations += world.operations;
        checkpoints += world.checkpoints;
    }
    println!("{} histories, {records} records, {operations} operations, {checkpoints} checkpoints", end - first);
    assert!(checkpoints > 0);
}

/// The judges are worth something: each broken rule is noticed, by the judge that watches it.
#[test]
fn broken_rules_are_noticed() {
    for (plant, judge, at_least) in
        [(Plant::ReplicaAsBase, "I6", 50), (Plant::Unsettled, "I5", 20), (Plant::Unkilled, "I2", 20)]
    {
        let verdicts: Vec<String> = (0..400).filter_map(|seed| run(seed, plant).0.err()).collect();
        let noticed = verdicts.iter().filter(|verdict| verdict.starts_with(judge)).count();
        println!("{plant:?}: {noticed} of 400 histories fail {judge}");
        assert!(noticed >= at_least, "{plant:?} was noticed in {noticed} histories only: {:?}", verdicts.first());
    }
}
