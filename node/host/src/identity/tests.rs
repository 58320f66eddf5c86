use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::entropy::entropy;

fn home() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let home = directory.path().join("a").join("home");
    (directory, home)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn error(result: Result<Identity, IdentityError>) -> IdentityError {
    match result {
        Ok(_) => panic!("was accepted"),
        Err(error) => error,
    }
}

#[test]
fn an_identity_is_made_once_and_kept() {
    let (_guard, home) = home();
    let first = Identity::load_or_create(&home, &mut entropy()).expect("create");
    let again = Identity::load_or_create(&home, &mut entropy()).expect("load");
    assert_eq!(first.device_secret(), again.device_secret());
    assert_eq!(first.seal_secret(), again.seal_secret());
    assert_eq!(first.incarnation(), again.incarnation());
    assert_eq!(fs::metadata(home.join(KEY_FILE)).expect("file").mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&home).expect("home").mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&home).expect("home").count(), 1, "no temporary file remains");
}

#[test]
fn the_seed_lives_until_it_is_wiped() {
    let (_guard, home) = home();
    let mut identity = Identity::load_or_create(&home, &mut entropy()).expect("create");
    assert!(!identity.set_root_seed(Zeroizing::new(vec![1; MAX_SEED + 1])));
    assert!(identity.set_root_seed(Zeroizing::new(vec![0xab; 16])));
    identity.save(&home, &mut entropy()).expect("save");
    let mut again = Identity::load_or_create(&home, &mut entropy()).expect("load");
    assert_eq!(again.root_seed(), Some(&[0xab; 16][..]));
    again.wipe_root(&home, &mut entropy()).expect("wipe");
    assert_eq!(again.root_seed(), None);
    let wiped = Identity::load(&home).expect("load").expect("exists");
    assert_eq!(wiped.root_seed(), None);
    assert_eq!(wiped.device_secret(), identity.device_secret());
}

#[test]
fn files_open_to_others_are_refused() {
    let (_guard, home) = home();
    Identity::load_or_create(&home, &mut entropy()).expect("create");
    let key = home.join(KEY_FILE);
    for mode in [0o640, 0o604, 0o601, 0o660] {
        set_mode(&key, mode);
        let error = error(Identity::load_or_create(&home, &mut entropy()));
        assert!(matches!(error, IdentityError::Permissions { mode: found, .. } if found == mode), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    set_mode(&key, 0o600);
    set_mode(&home, 0o750);
    let error = error(Identity::load_or_create(&home, &mut entropy()));
    assert!(error.to_string().contains("chmod 700"), "{error}");
    assert!(matches!(HomeLock::acquire(&home), Err(LockError::Home(IdentityError::Permissions { .. }))));
    set_mode(&home, 0o700);
    Identity::load_or_create(&home, &mut entropy()).expect("private again");
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let (_guard, home) = home();
    Identity::load_or_create(&home, &mut entropy()).expect("create");
    let key = home.join(KEY_FILE);
    let good = fs::read(&key).expect("read");
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1;
        fs::write(&key, &bad).expect("write");
        let error = error(Identity::load_or_create(&home, &mut entropy()));
        assert!(matches!(error, IdentityError::Damaged { .. } | IdentityError::Newer { .. }), "{index}: {error}");
    }
    for length in 0..good.len() {
        fs::write(&key, &good[..length]).expect("write");
        assert!(matches!(error(Identity::load_or_create(&home, &mut entropy())), IdentityError::Damaged { .. }));
    }
    fs::write(&key, &good).expect("write");
    Identity::load_or_create(&home, &mut entropy()).expect("good again");
}

#[test]
fn a_linked_key_file_is_not_followed() {
    let (_guard, home) = home();
    Identity::load_or_create(&home, &mut entropy()).expect("create");
    let (key, elsewhere) = (home.join(KEY_FILE), home.join("elsewhere"));
    fs::rename(&key, &elsewhere).expect("rename");
    std::os::unix::fs::symlink(&elsewhere, &key).expect("link");
    assert!(matches!(error(Identity::load_or_create(&home, &mut entropy())), IdentityError::Io { .. }));
}

#[test]
fn one_process_at_a_time() {
    let (_guard, home) = home();
    let lock = HomeLock::acquire(&home).expect("first");
    let second = HomeLock::acquire(&home).expect_err("second");
    assert!(second.to_string().contains("another process uses"), "{second}");
    drop(lock);
    HomeLock::acquire(&home).expect("free again");
}
