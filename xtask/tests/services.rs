//! `cargo xtask services` as its user meets it: real servers, and what is left of them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn servers_stop_in_order_when_the_chore_is_told_to_end() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["services", "--free", "--json", "--keep"]);
    let mut chore = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut urls = String::new();
    BufReader::new(chore.stdout.take().expect("its output")).read_line(&mut urls).expect("a line once all answer");
    assert!(urls.contains("postgres://"), "{urls}");

    let terminate = Command::new("kill").args(["-s", "TERM", &chore.id().to_string()]).status();
    assert!(terminate.expect("it runs").success());
    let mut said = String::new();
    chore.stderr.take().expect("its words").read_to_string(&mut said).expect("text");
    chore.wait().expect("it ends");
    let folder = said.split_once("the logs stay in ").and_then(|(_, after)| after.split_once(".\n"));
    let folder = folder.unwrap_or_else(|| panic!("no folder in: {said}")).0;
    for (log, last_words) in [
        ("postgres", "database system is shut down"),
        ("redis", "Redis is now ready to exit"),
        ("mongod", "\"msg\":\"Now exiting\""),
    ] {
        let path = Path::new(folder).join(format!("{log}.log"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            text.contains(last_words),
            "{log} was killed; it said last: {}",
            text.lines().last().unwrap_or("nothing")
        );
    }
    fs::remove_dir_all(folder).expect("the folder is ours");
}
