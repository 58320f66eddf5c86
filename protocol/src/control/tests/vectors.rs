//! The smallest histories that decide a rule of the evaluation.

use super::*;

fn is_live(control: &Control, log: ObjectId, expected: &[(u8, Role)]) {
    let expected: BTreeSet<_> = expected.iter().map(|(number, role)| (holder(*number), *role)).collect();
    assert_eq!(control.live(log), expected);
}

#[test]
fn v1_of_two_admins_who_remove_each_other_the_senior_stays() {
    let (mut control, mesh, one) = one_admin();
    let two = control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(2), Role::Own, &[]));
    control.push(Signer::Device(2), mesh, None, Some(two), revoke(holder(1), &[]));
    control.push(Signer::Device(1), mesh, Some(two), Some(one), revoke(holder(2), &[]));
    is_live(&control, mesh, &[(1, Role::Own)]);
}

#[test]
fn v2_an_admin_nearer_to_the_root_removes_a_farther_one() {
    let (mut control, mesh, one) = one_admin();
    let two = control.push(Signer::Root(100), mesh, Some(one), None, grant(holder(2), Role::Own, &[]));
    control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(3), Role::Own, &[]));
    control.push(Signer::Device(2), mesh, None, Some(two), revoke(holder(3), &[]));
    is_live(&control, mesh, &[(1, Role::Own), (2, Role::Own)]);
}

#[test]
fn v3_a_twin_below_the_cut_is_void_and_harms_nobody() {
    let (mut control, mesh, one) = one_admin();
    let kept = control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(2), Role::Edit, &[]));
    control.push(Signer::Root(100), mesh, Some(one), None, revoke(holder(1), &[(mesh, kept)]));
    control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(3), Role::Own, &[]));
    is_live(&control, mesh, &[(2, Role::Edit)]);
}

#[test]
fn v4_a_stockpile_of_puppets_falls_with_its_maker() {
    let (mut control, mesh, one) = one_admin();
    let two = control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(2), Role::Own, &[]));
    let three = control.push(Signer::Device(2), mesh, None, Some(two), grant(holder(3), Role::Own, &[]));
    control.push(Signer::Device(2), mesh, Some(three), Some(two), revoke(holder(1), &[]));
    control.push(Signer::Root(100), mesh, Some(one), None, revoke(holder(1), &[]));
    is_live(&control, mesh, &[]);
}

#[test]
fn v5_revoking_the_revoker_repairs() {
    let (mut control, mesh, one) = one_admin();
    let two = control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(2), Role::Own, &[]));
    let three = control.push(Signer::Device(1), mesh, Some(two), Some(one), grant(holder(3), Role::Edit, &[]));
    control.push(Signer::Device(2), mesh, None, Some(two), revoke(holder(3), &[]));
    is_live(&control, mesh, &[(1, Role::Own), (2, Role::Own)]);
    control.push(Signer::Device(1), mesh, Some(three), Some(one), revoke(holder(2), &[]));
    is_live(&control, mesh, &[(1, Role::Own), (3, Role::Edit)]);
}

#[test]
fn v6_only_equals_and_seniors_readmit() {
    let (mut control, mesh, one) = one_admin();
    let two = control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(2), Role::Own, &[]));
    let three = control.push(Signer::Device(1), mesh, Some(two), Some(one), grant(holder(3), Role::Edit, &[]));
    let removed = control.push(Signer::Device(1), mesh, Some(three), Some(one), revoke(holder(3), &[]));
    control.push(Signer::Device(2), mesh, None, Some(two), grant(holder(3), Role::Edit, &[removed]));
    is_live(&control, mesh, &[(1, Role::Own), (2, Role::Own)]);
    control.push(Signer::Device(1), mesh, Some(removed), Some(one), grant(holder(3), Role::Edit, &[removed]));
    is_live(&control, mesh, &[(1, Role::Own), (2, Role::Own), (3, Role::Edit)]);
}

#[test]
fn v7_a_promotion_does_not_shake_off_a_removal() {
    let (mut control, mesh, one) = one_admin();
    let three = control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(3), Role::Own, &[]));
    let two = control.push(Signer::Device(3), mesh, None, Some(three), grant(holder(2), Role::Edit, &[]));
    control.push(Signer::Device(3), mesh, Some(two), Some(three), revoke(holder(2), &[]));
    control.push(Signer::Device(1), mesh, Some(three), Some(one), grant(holder(2), Role::Own, &[]));
    is_live(&control, mesh, &[(1, Role::Own), (3, Role::Own)]);
}

#[test]
fn v8_a_stolen_device_of_a_member_is_cut_in_the_friends_object() {
    for named in [true, false] {
        let Shared { mut control, bob, object, admin, bobs_admin, bobs_device, .. } = shared();
        let (carol, dan) = (Holder([0xca; 32]), Holder([0xda; 32]));
        let invited =
            control.push_as(Signer::Device(1), object, None, None, admin, grant(person(bob), Role::Invite, &[]));
        let by_stolen = |control: &mut Control, prev, to| {
            let act = grant(to, Role::Edit, &[]);
            control.push_as(Signer::Device(12), object, prev, Some(invited), bobs_device, act)
        };
        let kept = by_stolen(&mut control, None, carol);
        by_stolen(&mut control, Some(kept), dan);
        let stands: &[(ObjectId, OpId)] = if named { &[(object, kept)] } else { &[] };
        control.push(Signer::Device(11), bob, Some(bobs_device), Some(bobs_admin), revoke(holder(12), stands));
        let mut expected = BTreeSet::from([(person(bob), Role::Invite)]);
        if named {
            expected.insert((carol, Role::Edit));
        }
        assert_eq!(control.live(object), expected);
    }
}

#[test]
fn v9_devices_of_one_owner_are_equals_in_an_object() {
    let Shared { mut control, alice, bob, object, admin, .. } = shared();
    let phone = control.push(Signer::Device(1), alice, None, Some(admin), grant(holder(2), Role::Edit, &[]));
    let invited = control.push_as(Signer::Device(1), object, None, None, admin, grant(person(bob), Role::Edit, &[]));
    let removed = control.push_as(Signer::Device(1), object, Some(invited), None, admin, revoke(person(bob), &[]));
    assert!(control.live(object).is_empty());
    control.push_as(Signer::Device(2), object, None, None, phone, grant(person(bob), Role::Read, &[removed]));
    assert_eq!(control.live(object), [(person(bob), Role::Read)].into());
    assert_eq!(control.role(object, device(12).device_id()), Some(Role::Read));
}

#[test]
fn v10_two_rotations_of_one_root_freeze_it() {
    let (mut control, mesh, one) = one_admin();
    let rotate = |number| Act::Rotate { root: root(number).public() };
    let next = control.push(Signer::Root(100), mesh, Some(one), None, rotate(201));
    control.push(Signer::Root(201), mesh, None, Some(next), grant(holder(5), Role::Own, &[]));
    is_live(&control, mesh, &[(1, Role::Own), (5, Role::Own)]);
    assert!(!control.is_frozen(MeshId(mesh.0)));
    let state = |control: &Control, number| control.root_state(MeshId(mesh.0), root(number).public());
    let states = |control: &Control| [100, 201, 202].map(|number| state(control, number));
    assert_eq!(states(&control), [Some(RootState::Replaced), Some(RootState::InForce), None]);
    // Who was replaced names another root in vain.
    let late = Act::Rotate { root: root(203).public() };
    control.push(Signer::Root(100), mesh, Some(next), None, late);
    assert_eq!(state(&control, 203), None);
    assert_eq!(control.roots(MeshId(mesh.0)).len(), 2);
    let other = control.push(Signer::Root(100), mesh, Some(one), None, rotate(202));
    control.push(Signer::Root(202), mesh, None, Some(other), revoke(holder(1), &[]));
    control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(2), Role::Edit, &[]));
    is_live(&control, mesh, &[(1, Role::Own), (2, Role::Edit)]);
    assert!(control.is_frozen(MeshId(mesh.0)));
    assert_eq!(states(&control), [Some(RootState::Frozen); 3]);
    assert_eq!(control.roots(MeshId(mesh.0)).len(), 4);
    let act = grant(holder(6), Role::Edit, &[]);
    assert_eq!(control.sign_root(&root(100), MeshId(mesh.0), act), Err(AuthorError::NotRoot));
}

#[test]
fn v11_leaving_binds_all_branches_and_needs_no_healing() {
    let (mut control, mesh, one) = one_admin();
    let two = control.push(Signer::Root(100), mesh, Some(one), None, grant(holder(2), Role::Own, &[]));
    control.push(Signer::Device(2), mesh, None, Some(two), Act::Leave {});
    control.push(Signer::Device(2), mesh, None, Some(two), grant(holder(3), Role::Own, &[]));
    is_live(&control, mesh, &[(1, Role::Own)]);
    control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(2), Role::Edit, &[]));
    is_live(&control, mesh, &[(1, Role::Own), (2, Role::Edit)]);
}

#[test]
fn v12_demotion_keeps_earlier_grants_and_voids_later_ones() {
    let (mut control, mesh, one) = one_admin();
    let two = control.push(Signer::Device(1), mesh, None, Some(one), grant(holder(2), Role::Own, &[]));
    let kept = control.push(Signer::Device(2), mesh, None, Some(two), grant(holder(3), Role::Edit, &[]));
    let cut = revoke(holder(2), &[(mesh, kept)]);
    let removed = control.push(Signer::Device(1), mesh, Some(two), Some(one), cut);
    control.push(Signer::Device(1), mesh, Some(removed), Some(one), grant(holder(2), Role::Edit, &[removed]));
    control.push(Signer::Device(2), mesh, Some(kept), Some(two), grant(holder(4), Role::Own, &[]));
    is_live(&control, mesh, &[(1, Role::Own), (2, Role::Edit), (3, Role::Edit)]);
}

#[test]
fn seniority_goes_on_behind_a_rotation() {
    let (mut control, mesh, one) = one_admin();
    let rotate = control.push(Signer::Root(100), mesh, Some(one), None, Act::Rotate { root: root(201).public() });
    let two = control.push(Signer::Root(201), mesh, None, Some(rotate), grant(holder(2), Role::Own, &[]));
    control.push(Signer::Device(2), mesh, None, Some(two), revoke(holder(1), &[]));
    control.push(Signer::Device(1), mesh, None, Some(one), revoke(holder(2), &[]));
    is_live(&control, mesh, &[(1, Role::Own)]);
}
