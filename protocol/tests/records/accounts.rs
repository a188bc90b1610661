//! What account records let a key do, whenever they come.

use cairn_protocol::accept::{Ledger, Refusal, Verdict};
use cairn_protocol::hash::{RecordId, RepositoryId};
use cairn_protocol::record::{Account, Link, Namespace};

use crate::world::{
    HOLDER, HOME, NEXT_HOME, PUBLISHER, REGISTRAR, ROOT, Realm, STRANGER, World, account_body, key,
    later, namespace_body, publisher, registrar,
};

/// A namespace in which one key may sign account records.
fn with_registrar() -> Namespace {
    let mut body = namespace_body();
    body.delegated.push(registrar(REGISTRAR));
    body
}

fn revoked() -> Account {
    Account {
        revoked: true,
        ..account_body(HOLDER)
    }
}

/// The account record in force for the holder.
fn in_force(world: &World) -> Option<RecordId> {
    let holder = key(HOLDER).public();
    let view = world.ledger.account(&world.realm.namespace, &holder);
    view.map(|view| view.id)
}

fn next(world: &World) -> Option<Link> {
    let holder = key(HOLDER).public();
    world.ledger.next_account(&world.realm.namespace, &holder)
}

fn may_publish(world: &World) -> bool {
    let (realm, holder) = (world.realm, key(HOLDER).public());
    let reference = "refs/heads/main";
    let ledger = &world.ledger;
    ledger.may_publish(&realm.namespace, &holder, &realm.repository, reference)
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let insert = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, count - 1);
        order
    };
    let longer = shorter
        .iter()
        .flat_map(|order| (0..count).map(move |at| insert(order, at)));
    longer.collect()
}

#[test]
fn an_account_counts_in_whatever_order_it_role_change_and_head_come() {
    let world = World::new();
    let realm = world.realm;
    let role = later(&world.namespace, (1, 2), with_registrar(), &[ROOT]);
    let account = realm.account(1, None, account_body(HOLDER), REGISTRAR);
    let change = realm.change(1, HOLDER);
    let head = realm.head(1, None, 0, &[&change]);
    let records = [&role, &account, &change, &head];
    for order in orders(records.len()) {
        let mut world = World::new();
        assert!(!may_publish(&world));
        for (count, index) in order.iter().enumerate() {
            assert_eq!(world.head(), None, "{order:?} before {count}");
            let verdict = world.insert(records[*index]);
            assert!(
                matches!(verdict, Verdict::Accepted | Verdict::Waiting),
                "{order:?} at {count}: {verdict:?}"
            );
        }
        assert_eq!(world.head(), Some(head.id()), "{order:?}");
        assert_eq!(in_force(&world), Some(account.id()), "{order:?}");
        assert!(may_publish(&world));
        assert_eq!(world.ledger.waiting(), 0, "{order:?}");
        for record in records {
            assert_eq!(world.ledger.waits(record), Some(false), "{order:?}");
            assert_eq!(world.insert(record), Verdict::Known, "{order:?}");
        }
    }
}

#[test]
fn what_is_in_force_is_shown_and_what_was_granted_holds_for_the_epoch() {
    let mut world = World::with(with_registrar());
    let realm = world.realm;
    assert_eq!(in_force(&world), None);
    assert_eq!(next(&world), Some(Link { seq: 1, prev: None }));
    let one = realm.account(1, None, account_body(HOLDER), REGISTRAR);
    let mut elsewhere = account_body(HOLDER);
    elsewhere.repositories = Some(vec![RepositoryId::from_bytes([7; 32])]);
    let two = realm.account(2, Some(&one), elsewhere.clone(), REGISTRAR);
    let three = realm.account(3, Some(&two), revoked(), REGISTRAR);
    let other = realm.account(1, None, account_body(STRANGER), REGISTRAR);
    for record in [&one, &two, &other] {
        assert_eq!(world.insert(record), Verdict::Accepted);
    }
    let view = world
        .ledger
        .account(&realm.namespace, &key(HOLDER).public());
    let view = view.unwrap();
    assert_eq!((view.id, view.epoch, view.seq), (two.id(), 1, 2));
    assert_eq!(view.signer, key(REGISTRAR).public());
    assert_eq!((view.time, view.body), (two.header().time, &elsewhere));
    assert_eq!(world.insert(&three), Verdict::Accepted);
    assert_eq!(in_force(&world), Some(three.id()));
    let expected = Link {
        seq: 4,
        prev: Some(three.id()),
    };
    assert_eq!(next(&world), Some(expected));
    let all = world.ledger.accounts(&realm.namespace);
    let mut all: Vec<RecordId> = all.map(|view| view.id).collect();
    all.sort_unstable();
    let mut shown = vec![three.id(), other.id()];
    shown.sort_unstable();
    assert_eq!(all, shown);
    // The home refuses it from now on. What it took in before may reach others only now.
    let change = realm.change(1, HOLDER);
    let head = realm.head(1, None, 0, &[&change]);
    assert_eq!(world.insert(&change), Verdict::Accepted);
    assert_eq!(world.insert(&head), Verdict::Accepted);
    assert_eq!(world.head(), Some(head.id()));
    assert!(may_publish(&world));
}

#[test]
fn a_revocation_grants_nothing_itself() {
    let mut world = World::with(with_registrar());
    let realm = world.realm;
    let change = realm.change(1, HOLDER);
    assert_eq!(world.insert(&change), Verdict::Waiting);
    let one = realm.account(1, None, revoked(), REGISTRAR);
    assert_eq!(world.insert(&one), Verdict::Accepted);
    assert_eq!(world.ledger.waits(&change), Some(true));
    assert!(!may_publish(&world));
    // Whom the registrar lets in again publishes again.
    let two = realm.account(2, Some(&one), account_body(HOLDER), REGISTRAR);
    assert_eq!(world.insert(&two), Verdict::Accepted);
    assert_eq!(world.ledger.waits(&change), Some(false));
}

#[test]
fn an_account_reaches_no_further_than_its_scope_and_its_signers_role() {
    let own = World::new().realm.repository;
    let other = RepositoryId::from_bytes([7; 32]);
    let heads = Some(vec!["refs/heads/*".to_owned()]);
    let tags = Some(vec!["refs/tags/*".to_owned()]);
    let table = [
        // Scope of the role; scope of the account; whether it may move `refs/heads/main`.
        ((None, None), (None, None), true),
        ((None, None), (Some(vec![other, own]), None), true),
        ((None, None), (Some(vec![other]), None), false),
        ((None, None), (None, heads.clone()), true),
        ((None, None), (None, tags.clone()), false),
        ((Some(vec![own]), heads.clone()), (None, None), true),
        ((Some(vec![other]), None), (None, None), false),
        ((None, tags), (None, None), false),
        ((Some(vec![other]), None), (Some(vec![own]), heads), false),
    ];
    for (role, scope, expected) in table {
        let case = format!("{role:?} {scope:?}");
        let mut body = namespace_body();
        let mut delegation = registrar(REGISTRAR);
        (delegation.repositories, delegation.refs) = role;
        body.delegated.push(delegation);
        // Another role, of another reach, adds nothing to this one.
        body.delegated.push(publisher(REGISTRAR));
        let namespace = later(&World::new().namespace, (1, 2), body, &[ROOT]);
        let mut account = account_body(HOLDER);
        (account.repositories, account.refs) = scope;
        for change_first in [false, true] {
            let mut world = World::new();
            assert_eq!(world.insert(&namespace), Verdict::Accepted);
            let account = world.realm.account(1, None, account.clone(), REGISTRAR);
            let change = world.realm.change(1, HOLDER);
            let records = [&account, &change];
            let order = if change_first { [1, 0] } else { [0, 1] };
            for index in order {
                world.insert(records[index]);
            }
            assert_eq!(world.ledger.waits(&change), Some(!expected), "{case}");
            assert_eq!(may_publish(&world), expected, "{case}");
        }
    }
}

#[test]
fn only_whom_the_root_gave_the_role_signs_accounts() {
    let mut world = World::with(with_registrar());
    let realm = world.realm;
    let change = realm.change(1, HOLDER);
    assert_eq!(world.insert(&change), Verdict::Waiting);
    for signer in [HOME, ROOT, PUBLISHER, HOLDER] {
        let account = realm.account(1, None, account_body(HOLDER), signer);
        assert_eq!(world.insert(&account), Verdict::Waiting, "{signer}");
    }
    assert_eq!(in_force(&world), None);
    assert_eq!(world.ledger.waits(&change), Some(true));
    // Nor do those that wait stand in the way of one that counts.
    assert_eq!(next(&world), Some(Link { seq: 1, prev: None }));
    let account = realm.account(1, None, account_body(HOLDER), REGISTRAR);
    assert_eq!(world.insert(&account), Verdict::Accepted);
    assert_eq!(in_force(&world), Some(account.id()));

    let over = later(&world.namespace, (2, 1), with_registrar(), &[ROOT]);
    assert_eq!(world.insert(&over), Verdict::Accepted);
    let late = realm.account(2, Some(&account), account_body(HOLDER), HOME);
    let refused = Verdict::Refused(Refusal::NotEntitled);
    assert_eq!(world.insert(&late), refused, "no more roles come");
}

#[test]
fn above_a_gap_a_record_counts_and_is_not_shown() {
    let mut world = World::with(with_registrar());
    let realm = world.realm;
    let one = realm.account(1, None, revoked(), REGISTRAR);
    let two = realm.account(2, Some(&one), account_body(HOLDER), REGISTRAR);
    let change = realm.change(1, HOLDER);
    assert_eq!(world.insert(&two), Verdict::Accepted);
    assert_eq!(world.ledger.waits(&two), Some(false));
    assert_eq!(world.ledger.waiting(), 0, "changes may rest on it");
    assert_eq!((in_force(&world), next(&world)), (None, None));
    assert_eq!(world.insert(&change), Verdict::Accepted);
    assert_eq!(world.insert(&one), Verdict::Accepted);
    assert_eq!(in_force(&world), Some(two.id()));
}

#[test]
fn two_records_of_one_version_stop_the_account_and_both_count() {
    let mut world = World::with(with_registrar());
    let realm = world.realm;
    let mut tags = account_body(HOLDER);
    tags.refs = Some(vec!["refs/tags/*".to_owned()]);
    let one = realm.account(1, None, tags, REGISTRAR);
    let revoking = realm.account(2, Some(&one), revoked(), REGISTRAR);
    let granting = realm.account(2, Some(&one), account_body(HOLDER), REGISTRAR);
    let change = realm.change(1, HOLDER);
    let head = realm.head(1, None, 0, &[&change]);
    for record in [&one, &revoking] {
        assert_eq!(world.insert(record), Verdict::Accepted);
    }
    for record in [&change, &head] {
        assert_eq!(world.insert(record), Verdict::Waiting);
    }
    let mut proof = [revoking.id(), granting.id()];
    proof.sort();
    assert_eq!(world.insert(&granting), Verdict::Frozen(proof));
    assert_eq!(in_force(&world), Some(one.id()), "the last agreed");
    assert_eq!(next(&world), None, "the home can see that it is not all");
    assert_eq!(world.head(), Some(head.id()));
    // The next epoch begins anew.
    let (epoch, rows, _) = world.next_epoch(&world.namespace, Some(&head));
    world.insert(&epoch);
    world.ledger.insert_rows(rows);
    assert_eq!(in_force(&world), None);
    assert_eq!(next(&world).map(|link| link.seq), Some(1));
    assert_eq!(world.head(), Some(head.id()));
}

#[test]
fn an_account_ends_with_its_epoch_and_what_was_taken_in_under_it_stays() {
    let world = World::with(with_registrar());
    let realm = world.realm;
    let account = realm.account(1, None, account_body(HOLDER), REGISTRAR);
    let change = realm.change(1, HOLDER);
    let head = realm.head(1, None, 0, &[&change]);
    let (_, rows, new) = world.next_epoch(&world.namespace, Some(&head));
    let mut body = with_registrar();
    body.home = key(NEXT_HOME).public();
    body.carried = Some(rows.hash());
    let epoch = later(&world.namespace, (2, 1), body, &[ROOT]);
    let records = [&epoch, &account, &change, &head];
    for order in orders(records.len()) {
        let mut world = World::with(with_registrar());
        world.ledger.insert_rows(rows.clone());
        for index in &order {
            let verdict = world.insert(records[*index]);
            assert!(!matches!(verdict, Verdict::Refused(_)), "{order:?}");
        }
        assert_eq!(world.head(), Some(head.id()), "{order:?}");
        assert_eq!(world.ledger.waiting(), 0, "{order:?}");
        assert_eq!(in_force(&world), None, "{order:?}");
        assert!(!may_publish(&world), "{order:?}");
        let prev = Some(account.id());
        assert_eq!(next(&world), Some(Link { seq: 1, prev }), "{order:?}");
        let anew = new.change(2, HOLDER);
        assert_eq!(world.insert(&anew), Verdict::Waiting, "{order:?}");
        let again = new.account(1, Some(&account), account_body(HOLDER), REGISTRAR);
        assert_eq!(world.insert(&again), Verdict::Accepted, "{order:?}");
        assert_eq!(world.ledger.waits(&anew), Some(false), "{order:?}");
        assert_eq!(in_force(&world), Some(again.id()), "{order:?}");
    }
}

#[test]
fn a_change_of_an_epoch_that_is_over_waits_only_while_an_account_may_come() {
    for (body, expected) in [
        (namespace_body(), Verdict::Refused(Refusal::NotEntitled)),
        (with_registrar(), Verdict::Waiting),
    ] {
        let mut world = World::with(body);
        let realm = world.realm;
        let over = later(&world.namespace, (2, 1), namespace_body(), &[ROOT]);
        assert_eq!(world.insert(&over), Verdict::Accepted);
        let change = realm.change(1, HOLDER);
        assert_eq!(world.insert(&change), expected);
        let account = realm.account(1, None, account_body(HOLDER), REGISTRAR);
        if expected == Verdict::Waiting {
            assert_eq!(world.insert(&account), Verdict::Kept);
            assert_eq!(world.ledger.waits(&change), Some(false));
        }
    }
}

#[test]
fn an_account_of_one_epoch_entitles_no_change_of_another() {
    let world = World::with(with_registrar());
    let (old, change) = (world.realm, world.realm.change(1, HOLDER));
    let over = later(&world.namespace, (2, 1), with_registrar(), &[ROOT]);
    let new = Realm { epoch: 2, ..old };
    let account = new.account(1, None, account_body(HOLDER), REGISTRAR);
    for records in [[&change, &account], [&account, &change]] {
        let mut world = World::with(with_registrar());
        assert_eq!(world.insert(&over), Verdict::Accepted);
        for record in records {
            world.insert(record);
        }
        assert_eq!(world.ledger.waits(&change), Some(true));
        assert_eq!(in_force(&world), Some(account.id()));
    }
}

#[test]
fn what_came_before_its_namespace_counts_once_it_is_there_and_leaves_nothing_else() {
    let world = World::with(with_registrar());
    let realm = world.realm;
    let account = realm.account(1, None, account_body(HOLDER), REGISTRAR);
    let stray = realm.account(1, None, account_body(HOLDER), STRANGER);
    let mut ledger = Ledger::default();
    for record in [&account, &stray] {
        assert_eq!(ledger.insert(record), Verdict::Waiting);
        assert_eq!(ledger.waits(record), Some(true));
    }
    assert_eq!(ledger.accounts(&realm.namespace).count(), 0);
    assert_eq!(ledger.insert(&world.namespace), Verdict::Accepted);
    let shown = ledger.account(&realm.namespace, &key(HOLDER).public());
    assert_eq!(shown.map(|view| view.id), Some(account.id()));
    assert_eq!(ledger.waits(&stray), Some(true), "a role may yet be given");
    assert_eq!(ledger.waiting(), 1);
}
