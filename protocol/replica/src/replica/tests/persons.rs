//! Other persons, and which of their devices may connect.

use meshwork_protocol::contact::CardDevice;

use super::*;
use crate::graph::Contact;

#[test]
fn a_person_of_whose_log_the_birth_alone_is_here_is_met_as_his_card_says() {
    let scene = Scene::new();
    let [first, other] = [VICTIM, OTHER].map(|node| scene.device(node));
    let log = scene.nodes[VICTIM].replica.control.log(scene.mesh).unwrap().missing(&[]);
    let mut rng = SeedRng::new([2; 32]);
    let owner = MeshId(scene.mesh.0);
    let founder = identity(50, MeshId([0; 32]));
    let root = RootKey::from_seed(&[8; 64], 0);
    let (mesh, welcome) = create_mesh(&mut rng, &root, &founder.device, &founder.seal).unwrap();
    let mut guest = Replica::new(identity(50, mesh));
    let _ = guest.found(welcome).unwrap();
    let devices = vec![CardDevice { device: first, addresses: Vec::new() }];
    let _ = guest.put_contact(&mut rng, owner, &Contact { name: "Bo".to_owned(), devices }).unwrap();
    let _ = guest.accept(&mut rng, scene.folder, owner, "files").unwrap();
    assert_eq!(guest.peers(), BTreeSet::from([first]));

    // A crash has left the first statement of those that came.
    let mut statements = log.iter().map(Signed::to_bytes);
    guest.restore_control(&statements.next().unwrap());
    assert!(guest.control.log(scene.mesh).is_some());
    assert_eq!(guest.peers(), BTreeSet::from([first]));
    statements.for_each(|statement| guest.restore_control(&statement));
    assert!(guest.peers().is_superset(&BTreeSet::from([first, other])), "the log says who they are");
}
