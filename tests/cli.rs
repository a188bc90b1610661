//! The command line as its users meet it: the real binary, its output and its exit codes.

#[cfg(test)]
mod cli {
    mod node;
    mod peers;
    mod settings;
    mod support;
    mod usage;
}
