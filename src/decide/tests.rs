//! Tables of decisions, and what holds for all of them: found with random options in random worlds.

use super::*;
use crate::sys::{FileId, Times};

const OLD: i64 = 1;
const NEW: i64 = 2;

fn stat(ino: u64, kind: Kind) -> Stat {
    let at = |seconds| (seconds, 0);
    Stat {
        id: FileId { dev: 1, ino },
        kind,
        mode: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        allocated: 0,
        times: Times {
            accessed: at(OLD),
            modified: at(OLD),
            changed: at(OLD),
        },
    }
}

fn file(ino: u64) -> Stat {
    stat(ino, Kind::File)
}

fn modified(stat: Stat, seconds: i64) -> Stat {
    let times = Times {
        modified: (seconds, 0),
        ..stat.times
    };
    Stat { times, ..stat }
}

fn plain(itself: Stat) -> Seen {
    Seen {
        itself,
        target: None,
    }
}

fn link(ino: u64, target: Result<Stat>) -> Seen {
    Seen {
        itself: stat(ino, Kind::Symlink),
        target: Some(target),
    }
}

fn source(seen: Seen, options: &Options) -> SourceFacts {
    let end = seen.end().unwrap_or(seen.itself);
    let follow = options.follow;
    let stat = match follow {
        Follow::Never => seen.itself,
        _ => end,
    };
    SourceFacts { seen, stat, follow }
}

fn dest(seen: Seen) -> DestFacts {
    DestFacts {
        seen,
        made_here: false,
        new_link: false,
        is_source_name: false,
        backup_is_source: false,
        is_dot: false,
        has_other_content: false,
        is_extraneous: false,
    }
}

/// Options, as somebody types them.
fn options(words: &str) -> Options {
    let mut options = Options::default();
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        match word {
            "-P" => options.follow = Follow::Never,
            "-r" => {
                options.recursive = true;
                options.copy_contents = false;
                options.follow = Follow::Never;
            }
            "-d" => {
                options.follow = Follow::Never;
                options.preserve.links = true;
            }
            "-p" => options.preserve.timestamps = true,
            "-f" => options.force = true,
            "-i" => options.ask = true,
            "-n" => options.overwrite = Overwrite::Never,
            "-u" => options.overwrite = Overwrite::IfOlder,
            "changed" => options.overwrite = Overwrite::IfChanged,
            "always" => options.atomic = Atomic::Always,
            "never" => options.atomic = Atomic::Never,
            "none-fail" => options.overwrite = Overwrite::Refuse,
            "-l" => options.make = Make::HardLinks,
            "-s" => options.make = Make::Symlinks,
            "-b" => options.backup = Backup::Existing,
            "numbered" => options.backup = Backup::Numbered,
            "attributes" => options.attributes_only = true,
            "remove" => options.remove_destination = true,
            _ => panic!("{word}"),
        }
    }
    options
}

#[track_caller]
fn check(rows: &[(&str, Seen, DestFacts, FilePlan)]) {
    for (words, from, to, plan) in rows {
        let options = options(words);
        let decision = decide(&options, &source(*from, &options), &Ok(Some(*to)));
        assert_eq!(decision.plan, *plan, "[{words}] {from:?} to {to:?}");
        assert_eq!(decision.ask, options.ask && !is_settled(*plan), "[{words}]");
    }
}

/// Whether there is nothing to ask about.
fn is_settled(plan: FilePlan) -> bool {
    matches!(
        plan,
        FilePlan::Skip(Reason::UpToDate) | FilePlan::Refuse(Operation::SameFile)
    )
}

#[test]
fn what_is_there_is_overwritten_replaced_or_kept() {
    use FilePlan::{Backup, Create, Overwrite, Refuse, Replace, Skip, Supersede};
    let a = plain(file(1));
    let b = dest(plain(file(2)));
    let many = dest(plain(Stat {
        nlink: 2,
        ..file(2)
    }));
    let dir = dest(plain(stat(2, Kind::Dir)));
    let fifo = plain(stat(1, Kind::Fifo));
    let symlink = link(1, Ok(file(9)));
    let of_source = DestFacts {
        backup_is_source: true,
        ..b
    };
    let dot = DestFacts { is_dot: true, ..b };
    let made = DestFacts {
        made_here: true,
        ..b
    };
    check(&[
        ("", a, b, Supersede),
        ("-i", a, b, Supersede),
        ("-f", a, b, Supersede),
        ("-n", a, b, Skip(Reason::Exists)),
        ("none-fail", a, b, Refuse(Operation::NotReplacing)),
        ("remove", a, b, Replace),
        ("-b", a, b, Backup),
        ("-b remove", a, b, Backup),
        ("-b", a, dot, Supersede),
        ("-b", a, of_source, Refuse(Operation::BackupIsSource)),
        ("numbered", a, of_source, Backup),
        ("", a, dir, Refuse(Operation::OtherOverDir)),
        ("-f remove", a, dir, Refuse(Operation::OtherOverDir)),
        ("-d", a, many, Replace),
        ("-d attributes", a, many, Overwrite),
        ("-r", a, many, Overwrite),
        ("", fifo, b, Overwrite),
        ("-r", fifo, b, Replace),
        ("-r attributes", fifo, b, Create),
        ("-P", symlink, b, Replace),
        ("-l", a, b, Create),
        ("-s", a, b, Create),
        ("-s remove", a, b, Replace),
        ("", a, made, Refuse(Operation::JustCreated)),
        ("-b", a, made, Refuse(Operation::JustCreated)),
        ("numbered", a, made, Backup),
    ]);
}

#[test]
fn an_update_needs_an_older_destination() {
    use FilePlan::{Skip, Supersede};
    let old = plain(modified(file(1), OLD));
    let new = plain(modified(file(1), NEW));
    let up_to_date = Skip(Reason::UpToDate);
    let is_old = dest(plain(modified(file(2), OLD)));
    let is_new = dest(plain(modified(file(2), NEW)));
    let longer = dest(plain(Stat { size: 1, ..file(2) }));
    check(&[
        ("-u", new, is_old, Supersede),
        ("-u", old, is_old, up_to_date),
        ("-u", old, is_new, up_to_date),
        ("-u -i", old, is_new, up_to_date),
        ("-u -i", new, is_old, Supersede),
        ("changed", new, is_old, Supersede),
        ("changed", old, is_new, Supersede),
        ("changed", old, is_old, up_to_date),
        ("changed", old, longer, Supersede),
    ]);
}

#[test]
fn a_file_is_superseded_where_nobody_would_miss_its_inode() {
    use FilePlan::{Overwrite, Refuse, Supersede};
    let a = plain(file(1));
    let b = dest(plain(file(2)));
    let changed = |change: fn(&mut Stat)| {
        let mut stat = file(2);
        change(&mut stat);
        dest(plain(stat))
    };
    let many = changed(|stat| stat.nlink = 2);
    let special = changed(|stat| stat.mode = 0o4755);
    let device = changed(|stat| stat.kind = Kind::CharDevice);
    let through = dest(link(3, Ok(file(2))));
    let fifo = plain(stat(1, Kind::Fifo));
    let no = Refuse(Operation::NotAtomic);
    check(&[
        ("", a, b, Supersede),
        ("", a, many, Overwrite),
        ("", a, special, Overwrite),
        ("", a, device, Overwrite),
        ("", a, through, Overwrite),
        ("", fifo, b, Overwrite),
        ("never", a, b, Overwrite),
        ("always", a, b, Supersede),
        ("always", fifo, b, Supersede),
        ("always", a, many, no),
        ("always", a, special, no),
        ("always", a, device, no),
        ("always", a, through, no),
        ("always attributes", a, b, Overwrite),
    ]);
}

#[test]
fn a_copy_on_a_filesystem_with_coarse_times_is_not_older_for_that() {
    let mut fine = file(1);
    fine.times.modified = (NEW, 999_999_999);
    let coarse = dest(plain(modified(file(2), NEW)));
    check(&[
        ("-u", plain(fine), coarse, FilePlan::Supersede),
        (
            "-u -p",
            plain(fine),
            coarse,
            FilePlan::Skip(Reason::UpToDate),
        ),
    ]);
    let mut changed = modified(file(2), NEW);
    changed.times.changed = (NEW, 123_456_789);
    check(&[(
        "-u -p",
        plain(fine),
        dest(plain(changed)),
        FilePlan::Supersede,
    )]);
}

#[test]
fn links_at_the_destination_are_written_through_by_data_only() {
    use FilePlan::{Backup, Create, Overwrite, Refuse, Replace, Unreachable};
    let a = plain(file(1));
    let to_file = dest(link(3, Ok(file(4))));
    let to_dir = dest(link(3, Ok(stat(4, Kind::Dir))));
    let to_nothing = dest(link(3, Err(Errno::NOENT)));
    let in_a_circle = dest(link(3, Err(Errno::LOOP)));
    let symlink = link(1, Ok(file(9)));
    let new = |dest| DestFacts {
        new_link: true,
        made_here: true,
        ..dest
    };
    check(&[
        ("", a, to_file, Overwrite),
        ("-b", a, to_file, Backup),
        ("remove", a, to_file, Replace),
        ("-P", symlink, to_file, Replace),
        ("", a, to_dir, Refuse(Operation::OtherOverDir)),
        ("remove", a, to_dir, Replace),
        ("", a, new(to_file), Refuse(Operation::JustCreatedLink)),
        ("", a, new(to_nothing), Refuse(Operation::JustCreatedLink)),
        (
            "-f",
            a,
            new(in_a_circle),
            Refuse(Operation::JustCreatedLink),
        ),
        ("remove", a, new(to_file), Refuse(Operation::JustCreated)),
        ("remove", a, to_nothing, Replace),
        ("remove", a, in_a_circle, Replace),
    ]);
    // Nothing exists there that a question could be about.
    let decision = |words: &str, dest: &DestFacts| {
        let options = options(words);
        decide(&options, &source(a, &options), &Ok(Some(*dest)))
    };
    assert_eq!(decision("-n", &to_nothing), Create.into());
    assert_eq!(decision("-i", &to_nothing), Create.into());
    assert_eq!(decision("-f", &in_a_circle), Overwrite.into());
    assert_eq!(decision("", &in_a_circle), Unreachable(Errno::LOOP).into());
}

#[test]
fn one_file_is_refused_unless_nothing_is_lost() {
    use FilePlan::{Backup, Create, Refuse, Replace, Skip};
    let same = Refuse(Operation::SameFile);
    let done = Skip(Reason::Same);
    let a = plain(file(1));
    let itself = DestFacts {
        is_source_name: true,
        ..dest(a)
    };
    let twice = Stat {
        nlink: 2,
        ..file(1)
    };
    let other_name = dest(plain(twice));
    let link_to_a = dest(link(3, Ok(file(1))));
    let through = link(3, Ok(file(1)));
    let same_link = DestFacts {
        is_source_name: true,
        ..dest(through)
    };
    check(&[
        ("", a, itself, same),
        ("-f", a, itself, same),
        ("-b", a, itself, same),
        ("remove", a, itself, same),
        ("-n", a, itself, Skip(Reason::Exists)),
        ("-l", a, itself, done),
        ("-s", a, itself, same),
        ("", plain(twice), other_name, same),
        ("-d", plain(twice), other_name, same),
        ("-b", plain(twice), other_name, Backup),
        ("remove", plain(twice), other_name, Replace),
        ("-l", plain(twice), other_name, done),
        ("", a, link_to_a, same),
        ("-P", a, link_to_a, same),
        ("-b", a, link_to_a, Backup),
        ("remove", a, link_to_a, Replace),
        ("-l", a, link_to_a, Create),
        ("-s", a, link_to_a, Create),
        ("", through, dest(a), same),
        ("-P", through, dest(a), same),
        ("-b", through, dest(a), same),
        ("-P -b", through, dest(a), Backup),
        ("-b", through, same_link, same),
        ("remove", through, same_link, same),
        ("-b", through, same_link, same),
        ("remove", through, same_link, same),
        ("-P", through, same_link, same),
        ("-P -b", through, same_link, same),
        ("-P", through, dest(through), done),
        ("-P -b", through, dest(through), Backup),
    ]);
}

// ---- Whatever is asked for, and whatever is there ----

mod random {
    use super::*;
    use crate::options::{Effort, Preserve};
    use proptest::prelude::*;
    use proptest::sample::select;

    /// What is at each of the inodes 1 to 4. A symbolic link leads to one of them, or nowhere.
    #[derive(Clone, Debug)]
    struct World {
        inodes: Vec<(Stat, Result<usize>)>,
        source: usize,
        dest: usize,
        /// Both names are one.
        is_source_name: bool,
        has_other_content: bool,
    }

    impl World {
        fn see(&self, inode: usize) -> Seen {
            let (itself, target) = self.inodes[inode];
            if itself.kind != Kind::Symlink {
                return plain(itself);
            }
            // One that leads to a link leads around in a circle.
            let end = target.and_then(|target| match self.inodes[target].0 {
                Stat {
                    kind: Kind::Symlink,
                    ..
                } => Err(Errno::LOOP),
                stat => Ok(stat),
            });
            Seen {
                itself,
                target: Some(end),
            }
        }
    }

    fn worlds() -> impl Strategy<Value = World> {
        let kind = select(
            &[
                Kind::File,
                Kind::File,
                Kind::Symlink,
                Kind::Dir,
                Kind::Fifo,
                Kind::CharDevice,
            ][..],
        );
        let mode = select(&[0o644, 0o4755, 0o000, 0o1777][..]);
        let target = prop_oneof![
            (0..4_usize).prop_map(Ok),
            select(&[Errno::NOENT, Errno::LOOP, Errno::ACCESS][..]).prop_map(Err),
        ];
        let inode = (kind, mode, 1..4_u64, 0..2_u64, (0..3_i64, 0..2_u32), target);
        let inode = inode.prop_map(|(kind, mode, nlink, size, modified, target)| {
            let times = Times {
                modified,
                ..stat(0, kind).times
            };
            let stat = Stat {
                mode,
                nlink,
                size,
                times,
                ..stat(0, kind)
            };
            (stat, target)
        });
        let names = (0..4_usize, 0..4_usize, any::<bool>(), any::<bool>());
        (prop::collection::vec(inode, 4), names).prop_map(|(mut inodes, names)| {
            let (source, dest, is_one, has_other_content) = names;
            let is_source_name = is_one && source == dest;
            for (ino, (stat, _)) in (1..).zip(&mut inodes) {
                stat.id.ino = ino;
            }
            if source == dest && !is_source_name {
                let nlink = &mut inodes[source].0.nlink;
                *nlink = 2.max(*nlink);
            }
            World {
                inodes,
                source,
                dest,
                is_source_name,
                has_other_content,
            }
        })
    }

    fn all_options() -> impl Strategy<Value = Options> {
        use Overwrite::{
            Always, IfChanged, IfContentDiffers, IfOlder, IfSizeDiffers, Never, Refuse,
        };
        let flags = any::<[bool; 9]>();
        let follow = select(&[Follow::Never, Follow::Operands, Follow::Always][..]);
        let make = select(&[Make::Copies, Make::Copies, Make::HardLinks, Make::Symlinks][..]);
        let overwrite = select(
            &[
                Always,
                Always,
                IfOlder,
                IfChanged,
                IfSizeDiffers,
                IfContentDiffers,
                Never,
                Refuse,
            ][..],
        );
        let backup = select(
            &[
                Backup::No,
                Backup::No,
                Backup::Simple,
                Backup::Numbered,
                Backup::Existing,
            ][..],
        );
        let atomic = select(&[Atomic::Auto, Atomic::Always, Atomic::Never][..]);
        (flags, follow, make, overwrite, backup, atomic).prop_map(
            |(flags, follow, make, overwrite, backup, atomic)| Options {
                recursive: flags[0],
                copy_contents: flags[1],
                attributes_only: flags[2],
                ask: flags[3],
                force: flags[4],
                remove_destination: flags[5],
                keep_directory_symlink: flags[6],
                preserve: Preserve {
                    links: flags[7],
                    timestamps: flags[8],
                    xattrs: Effort::No,
                    ..Preserve::default()
                },
                follow,
                make,
                overwrite,
                backup,
                atomic,
                ..Options::default()
            },
        )
    }

    /// What the decision is about, if there is something to copy.
    fn facts(
        world: &World,
        options: &Options,
        flags: [bool; 4],
    ) -> Option<(SourceFacts, DestFacts)> {
        let seen = world.see(world.source);
        let stat = match options.follow {
            Follow::Never => seen.itself,
            _ => seen.end().ok()?,
        };
        let follow = options.follow;
        let [made_here, new_link, backup_is_source, is_dot] = flags;
        let seen_dest = world.see(world.dest);
        let dest = DestFacts {
            seen: seen_dest,
            made_here,
            new_link: new_link && seen_dest.target.is_some(),
            is_source_name: world.is_source_name,
            backup_is_source,
            is_dot: is_dot && seen_dest.itself.kind == Kind::Dir,
            has_other_content: world.has_other_content,
            is_extraneous: false,
        };
        Some((SourceFacts { seen, stat, follow }, dest))
    }

    fn config() -> ProptestConfig {
        ProptestConfig {
            failure_persistence: None,
            max_global_rejects: 10_000_000,
            ..ProptestConfig::with_cases(5000)
        }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn no_decision_loses_the_source(
            world in worlds(),
            options in all_options(),
            flags in any::<[bool; 4]>(),
        ) {
            let facts = facts(&world, &options, flags);
            prop_assume!(facts.is_some_and(|(source, _)| source.stat.kind != Kind::Dir));
            let (source, dest) = facts.expect("there is one");
            let there = Ok(Some(dest));
            let Decision { ask, plan } = decide(&options, &source, &there);
            let from = source.stat;
            let (to, end) = (dest.seen.itself, dest.seen.end());
            match plan {
                // Its data would be emptied.
                FilePlan::Overwrite | FilePlan::Supersede => {
                    prop_assert!(end.is_err() || end.is_ok_and(|end| end.id != from.id));
                }
                // A name of it goes: it must have another one.
                FilePlan::Replace | FilePlan::Backup => {
                    prop_assert!(!dest.is_source_name || options.make != Make::Copies);
                    prop_assert!(to.kind != Kind::Dir);
                    prop_assert!(to.id != from.id || from.nlink > 1 || plan == FilePlan::Backup);
                }
                FilePlan::Create
                | FilePlan::Dress
                | FilePlan::Skip(_)
                | FilePlan::Refuse(_)
                | FilePlan::Unreachable(_) => {}
            }
            if plan == FilePlan::Supersede {
                prop_assert!(to.kind == Kind::File && to.nlink == 1);
            }
            let leaves_alone = matches!(plan, FilePlan::Skip(_) | FilePlan::Refuse(_));
            let is_there = !looks_through(&options, from.kind) || end.is_ok();
            if matches!(options.overwrite, Overwrite::Never | Overwrite::Refuse) && is_there {
                prop_assert!(leaves_alone);
            }
            if options.atomic == Atomic::Always && !options.attributes_only && end.is_ok() {
                prop_assert!(plan != FilePlan::Overwrite);
            }
            if end.is_ok_and(|end| end.kind == Kind::Dir) && options.backup == Backup::No
                && !options.overwrite.compares()
                && (to.kind == Kind::Dir || !options.remove_destination) && has_data(&options, from.kind)
            {
                prop_assert!(leaves_alone);
            }
            if dest.made_here && options.backup == Backup::No && is_there && !leaves_alone {
                // Not what another operand had made, but for a link, of which cp sees the target here.
                prop_assert!(plan == FilePlan::Create || dest.new_link);
            }
            prop_assert!(!ask || options.ask);
            prop_assert_eq!(Decision { ask, plan }, decide(&options, &source, &there));
        }

        #[test]
        fn only_a_directory_takes_a_directory(
            world in worlds(),
            options in all_options(),
            flags in any::<[bool; 4]>(),
        ) {
            let facts = facts(&world, &options, flags);
            prop_assume!(facts.is_some_and(|(source, _)| source.stat.kind == Kind::Dir));
            let (source, dest) = facts.expect("there is one");
            let plan = decide_dir(&options, &source, &Ok(Some(dest)));
            match plan {
                FilePlan::Overwrite => {
                    let follows = options.keep_directory_symlink;
                    let is_dir = |stat: Stat| stat.kind == Kind::Dir;
                    prop_assert!(is_dir(dest.seen.itself) || follows && dest.seen.end().is_ok_and(is_dir));
                }
                FilePlan::Skip(_) | FilePlan::Refuse(_) => {}
                _ => prop_assert!(false, "{plan:?}"),
            }
        }
    }
}

#[test]
fn directories_merge_with_directories_only() {
    let dir = |ino| plain(stat(ino, Kind::Dir));
    let to_dir = dest(link(3, Ok(stat(2, Kind::Dir))));
    let refused = FilePlan::Refuse(Operation::DirOverOther);
    for (words, to, plan) in [
        ("-r", dest(dir(2)), FilePlan::Overwrite),
        ("-r", dest(plain(file(2))), refused),
        ("-r -f remove", dest(plain(file(2))), refused),
        ("-r", to_dir, refused),
        ("-r", dest(dir(1)), FilePlan::Refuse(Operation::SameFile)),
        ("-r -n", dest(dir(1)), FilePlan::Overwrite),
        ("-r -l", dest(dir(1)), FilePlan::Skip(Reason::Same)),
    ] {
        let options = options(words);
        let from = source(dir(1), &options);
        assert_eq!(
            decide_dir(&options, &from, &Ok(Some(to))),
            plan,
            "[{words}] {to:?}"
        );
    }
    let mut options = options("-r");
    options.keep_directory_symlink = true;
    let from = source(dir(1), &options);
    assert_eq!(
        decide_dir(&options, &from, &Ok(Some(to_dir))),
        FilePlan::Overwrite
    );
}
