//! Records from outside: their one form, what is refused, and what a set of them adds up to.

#[path = "../fuzz/targets/records.rs"]
mod targets;

#[path = "records/acceptance.rs"]
mod acceptance;
#[path = "records/accounts.rs"]
mod accounts;
#[path = "records/forms.rs"]
mod forms;
#[path = "records/members.rs"]
mod members;
#[path = "records/vectors.rs"]
mod vectors;
#[path = "records/world.rs"]
mod world;
