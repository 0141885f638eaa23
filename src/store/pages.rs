//! redb's file, page by page, held against redb's own checksums. Trusts no byte and changes none.
//!
//! redb itself verifies checksums only when it repairs a file; reading damaged pages, it may answer wrongly, panic or
//! go round in circles. [`Pages::check`] looks at all that every call depends on (the header, and every page but
//! those that hold results and source rows, whose sums are our own); [`Pages::walk`] reads a table and says what of
//! it is whole.
//!
//! ```text
//! file   header in the first 4096 bytes, then regions of 2^20 pages
//! header magic 9 | flags | – | geometry at 12 | full regions at 24 | pages of the last at 28 | two slots at 64
//! slot   version | has tables | has system tables | … | root at 8 | system root at 40 | … | checksum at 112
//! root   page number u64 | checksum u128 | entries u64
//! leaf   1 | – | pairs u16 | ends of keys u32… | ends of values u32… | keys | values
//! branch 2 | – | keys u16 | – | checksums u128… | page numbers u64… | ends of keys u32… | keys
//! ```
//! Ends are left out where the width is fixed. (redb's `docs/design.md`, file format 3.) Who points to a page has its
//! checksum, so that a tree which verifies has no cycle.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use redb::TableHandle;
use xxhash_rust::xxh3::xxh3_128;

use super::db::{FACTS, NEXT_ID_FACT};
use super::error::StoreError;

const PAGE: u64 = 4096;
const MAGIC: &[u8] = b"redb\x1a\n\xa9\r\n";
/// Page size, pages of a region's head, pages of a region: the same in every file of ours.
const GEOMETRY: [u32; 3] = [PAGE as u32, 0, 1 << 20];
const SECOND_IS_PRIMARY: u8 = 1;
/// The file was not closed; how much of it is in use is not known then.
const UNCLEAN: u8 = 2;
const SLOTS: [usize; 2] = [64, 192];
const SLOT: usize = 128;
/// A slot is being written now and then; a reader looks again so often.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(2);

/// A file of redb.
pub(super) struct Pages {
    file: File,
    length: u64,
    data: Option<Tree>,
    system: Option<Tree>,
    /// Nothing was ever committed.
    pub untouched: bool,
    /// What is wrong with the header, if the state below it could still be found.
    pub header: Option<&'static str>,
}

/// Where a tree begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree {
    root: Link,
    /// Entries that it should have.
    pub entries: u64,
    widths: Widths,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    page: u64,
    /// `None`: nobody knows it.
    checksum: Option<u128>,
}

impl Link {
    fn is_to(&self, covered: &[u8]) -> bool {
        self.checksum.is_none_or(|checksum| checksum == xxh3_128(covered))
    }
}

/// Bytes of each key and of each value; `None`: they differ.
#[derive(Debug, Clone, Copy)]
struct Widths {
    key: Option<usize>,
    value: Option<usize>,
}

/// A tree of tables, by their names.
const NAMES: Widths = Widths { key: None, value: None };

/// What a walk meets.
pub(super) enum Found<'a> {
    /// An entry, and where in the file its value is. `sound`: its page has the right checksum.
    Entry { key: &'a [u8], value: &'a [u8], at: u64, sound: bool },
    /// A page is not what it was: what follows, up to the next sound entry, may be anything.
    Lost,
}

impl Pages {
    /// The file at `path`.
    ///
    /// # Errors
    /// When no state can be found by its head.
    pub fn open(path: &Path) -> Result<Pages, StoreError> {
        let mut pages = Pages::unread(path)?;
        for looks in 1.. {
            let head = pages.read(0, pages.length.min(PAGE));
            let mut head = head.ok_or_else(|| StoreError::damaged("a block", "its head"))?;
            head.resize(PAGE as usize, 0);
            // What the head speaks of was there when it was read; a run may make the file longer.
            pages.length = length(&pages.file, path)?;
            let found = pages.choose(&head);
            if looks == LOOKS || found.is_ok() && pages.header.is_none() {
                found?;
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(pages)
    }

    fn unread(path: &Path) -> Result<Pages, StoreError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let length = length(&file, path)?;
        Ok(Pages { file, length, data: None, system: None, untouched: false, header: None })
    }

    /// The file at `path`, or, if its head or the root of its tables is lost, the latest tables that are found in it;
    /// `None`: there are none.
    pub fn find(path: &Path) -> Result<Option<Pages>, StoreError> {
        let mut pages = match Pages::open(path) {
            Ok(pages) if pages.tables().iter().all(|(_, tree)| tree.is_ok()) => return Ok(Some(pages)),
            Ok(pages) => Pages { header: Some("the root of its tables"), ..pages },
            Err(StoreError::Damaged { .. }) => Pages { header: Some("its commits"), ..Pages::unread(path)? },
            Err(error) => return Err(error),
        };
        let roots = (0..(pages.length / PAGE).min(1 << 20)).map(|page| Tree {
            root: Link { page, checksum: None },
            entries: 0,
            widths: NAMES,
        });
        let aged: Vec<(u64, Tree)> =
            roots.filter_map(|root| Some((pages.fact_below(&root, NEXT_ID_FACT)?, root))).collect();
        let last = aged.iter().map(|(age, _)| *age).max();
        let latest = aged.into_iter().filter(|(age, _)| Some(*age) == last).map(|(_, root)| root);
        pages.data = latest.max_by_key(|root| pages.whole_tables(root));
        Ok(pages.data.is_some().then_some(pages))
    }

    /// How many tables below a root are whole, and their entries.
    fn whole_tables(&self, root: &Tree) -> (usize, u64) {
        let tables = self.list(Some(root)).into_iter().filter_map(|(_, tree)| tree.ok());
        let whole: Vec<u64> = tables.filter(|tree| self.branches_whole(tree)).map(|tree| tree.entries).collect();
        (whole.len(), whole.iter().sum())
    }

    /// A number of our table of facts.
    pub fn fact(&self, name: &str) -> Option<u64> {
        self.fact_below(self.data.as_ref()?, name)
    }

    /// The same, if these are our tables.
    fn fact_below(&self, tables: &Tree, name: &str) -> Option<u64> {
        let facts = self.list(Some(tables)).into_iter().find(|(table, _)| table == FACTS.name())?;
        let mut fact = None;
        self.walk(&facts.1.ok()?, &mut |found| {
            if let Found::Entry { key, value, sound: true, .. } = found
                && key == name.as_bytes()
            {
                fact = value.try_into().ok().map(u64::from_le_bytes);
            }
        });
        fact
    }

    /// Takes the slot that redb would take, else the other one.
    fn choose(&mut self, head: &[u8]) -> Result<(), StoreError> {
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let closed = head[MAGIC.len()] & UNCLEAN == 0;
        let listed = (u64::from(number(24)) << 20) + u64::from(number(28));
        self.header = if &head[..MAGIC.len()] != MAGIC {
            Some("its first bytes")
        } else if GEOMETRY != [number(12), number(16), number(20)] {
            Some("its geometry")
        } else if !self.length.is_multiple_of(PAGE) || closed && (listed == 0 || self.length < PAGE * (1 + listed)) {
            Some("its length")
        } else {
            None
        };
        let primary = usize::from(head[MAGIC.len()] & SECOND_IS_PRIMARY);
        let slots = [primary, primary ^ 1].map(|slot| read_slot(&head[SLOTS[slot]..][..SLOT]));
        let [first, second] = slots;
        // The other slot may hold what a first commit was about to be.
        self.untouched = matches!(first, Some((None, None)));
        if first.is_none() {
            self.header = Some("its last commit");
        }
        let chosen = first.or(second).ok_or_else(|| StoreError::damaged("its commits", "its head"))?;
        (self.data, self.system) = chosen;
        Ok(())
    }

    /// That redb can be let loose on the file: all of it is whole but perhaps the values of the tables in `apart`.
    pub fn check(&self, apart: &[&str]) -> Result<(), StoreError> {
        if let Some(what) = self.header {
            return Err(StoreError::damaged(what, "its head"));
        }
        for (name, tree) in self.tables().into_iter().chain(self.system_tables()) {
            let tree = tree.map_err(|()| StoreError::damaged("a name", "its list of tables"))?;
            let whole = match apart.contains(&name.as_str()) {
                true => self.branches_whole(&tree),
                false => self.whole(&tree),
            };
            if !whole {
                return Err(StoreError::damaged("a page", format!("the table of {name}")));
            }
        }
        Ok(())
    }

    /// The tables and their names; an error is one whose description is lost.
    pub fn tables(&self) -> Vec<(String, Result<Tree, ()>)> {
        self.list(self.data.as_ref())
    }

    /// redb's own tables.
    pub fn system_tables(&self) -> Vec<(String, Result<Tree, ()>)> {
        self.list(self.system.as_ref())
    }

    fn list(&self, tree: Option<&Tree>) -> Vec<(String, Result<Tree, ()>)> {
        let mut tables = Vec::new();
        let Some(tree) = tree else { return tables };
        self.walk(tree, &mut |found| match found {
            Found::Entry { key, value, sound: true, .. } => {
                let name = String::from_utf8_lossy(key).into_owned();
                match read_definition(value) {
                    Some(tree) => tables.extend(tree.map(|tree| (name, Ok(tree)))),
                    None => tables.push((name, Err(()))),
                }
            }
            Found::Entry { .. } => {}
            Found::Lost => tables.push((String::new(), Err(()))),
        });
        tables
    }

    pub fn whole(&self, tree: &Tree) -> bool {
        let mut whole = true;
        self.walk(tree, &mut |found| whole &= matches!(found, Found::Entry { sound: true, .. }));
        whole
    }

    /// Whether the pages above the last level are whole.
    fn branches_whole(&self, tree: &Tree) -> bool {
        let mut level = vec![tree.root];
        loop {
            // All leaves are at the same depth.
            let first = level.first().and_then(|link| self.page(link.page));
            let Some(first) = first else { return false };
            if first[0] == LEAF {
                return true;
            }
            let mut below = Vec::new();
            for link in level {
                let page = self.page(link.page);
                let branch = page.as_deref().and_then(|page| Branch::read(page, tree.widths));
                match branch.filter(|branch| link.is_to(branch.covered)) {
                    Some(branch) => below.extend((0..=branch.keys).map(|n| branch.child(n))),
                    None => return false,
                }
            }
            level = below;
        }
    }

    /// Goes through all entries of a tree in order.
    pub fn walk(&self, tree: &Tree, see: &mut dyn FnMut(Found)) {
        self.walk_page(tree.root, tree.widths, see);
    }

    fn walk_page(&self, link: Link, widths: Widths, see: &mut dyn FnMut(Found)) {
        let Some(page) = self.page(link.page) else { return see(Found::Lost) };
        if let Some(branch) = Branch::read(&page, widths).filter(|branch| link.is_to(branch.covered)) {
            return (0..=branch.keys).for_each(|n| self.walk_page(branch.child(n), widths, see));
        }
        let Some(leaf) = Leaf::read(&page, widths) else { return see(Found::Lost) };
        let sound = link.is_to(leaf.covered);
        if !sound {
            see(Found::Lost);
        }
        for (key, value) in leaf.pairs {
            let at = self.offset(link.page) + value.start as u64;
            see(Found::Entry { key: &page[key], value: &page[value], at, sound });
        }
    }

    fn offset(&self, page: u64) -> u64 {
        let (order, region, index) = (page >> 59, page >> 20 & 0xF_FFFF, page & (0xF_FFFF >> (page >> 59)));
        PAGE + region * (PAGE << 20) + index * (PAGE << order)
    }

    fn page(&self, number: u64) -> Option<Vec<u8>> {
        self.read(self.offset(number), PAGE << (number >> 59))
    }

    /// Some bytes of the file.
    pub fn read(&self, at: u64, bytes: u64) -> Option<Vec<u8>> {
        if at.checked_add(bytes)? > self.length {
            return None;
        }
        let mut read = vec![0; bytes as usize];
        self.file.read_exact_at(&mut read, at).ok()?;
        Some(read)
    }
}

fn length(file: &File, path: &Path) -> Result<u64, StoreError> {
    Ok(file.metadata().map_err(StoreError::io("read", path))?.len())
}

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

struct Leaf<'a> {
    pairs: Vec<(Range<usize>, Range<usize>)>,
    /// What the checksum is of.
    covered: &'a [u8],
}

impl<'a> Leaf<'a> {
    fn read(page: &'a [u8], widths: Widths) -> Option<Leaf<'a>> {
        let pairs = u16::from_le_bytes([page[2], page[3]]) as usize;
        if page[0] != LEAF || pairs == 0 {
            return None;
        }
        let listed = |width: Option<usize>| if width.is_none() { 4 * pairs } else { 0 };
        let (key_ends, value_ends) = (4, 4 + listed(widths.key));
        let keys = ranges(page, key_ends, value_ends + listed(widths.value), pairs, widths.key)?;
        let values = ranges(page, value_ends, keys.last()?.end, pairs, widths.value)?;
        let covered = &page[..values.last()?.end];
        Some(Leaf { pairs: keys.into_iter().zip(values).collect(), covered })
    }
}

/// `n` stretches of a page from `start` on, of one width or with their ends listed at `ends`.
fn ranges(page: &[u8], ends: usize, start: usize, n: usize, width: Option<usize>) -> Option<Vec<Range<usize>>> {
    let mut from = start;
    let next = |i: usize| {
        let to = match width {
            Some(width) => from.checked_add(width)?,
            None => u32_at(page, ends + 4 * i)? as usize,
        };
        let range = from..to;
        from = to;
        (range.start <= to && to <= page.len()).then_some(range)
    };
    (0..n).map(next).collect()
}

struct Branch<'a> {
    page: &'a [u8],
    keys: usize,
    /// What the checksum is of.
    covered: &'a [u8],
}

impl<'a> Branch<'a> {
    fn read(page: &'a [u8], widths: Widths) -> Option<Branch<'a>> {
        let keys = u16::from_le_bytes([page[2], page[3]]) as usize;
        if page[0] != BRANCH || keys == 0 {
            return None;
        }
        let ends = 8 + 24 * (keys + 1);
        let start = ends + if widths.key.is_none() { 4 * keys } else { 0 };
        let separators = ranges(page, ends, start, keys, widths.key)?;
        let covered = &page[..separators.last()?.end];
        Some(Branch { page, keys, covered })
    }

    fn child(&self, n: usize) -> Link {
        let number = 8 + 16 * (self.keys + 1) + 8 * n;
        read_link(&self.page[number..], &self.page[8 + 16 * n..])
    }
}

fn read_link(page: &[u8], checksum: &[u8]) -> Link {
    Link {
        page: u64::from_le_bytes(page[..8].try_into().expect("eight bytes")),
        checksum: Some(u128::from_le_bytes(checksum[..16].try_into().expect("sixteen bytes"))),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The roots of a commit, if its checksum is right.
fn read_slot(slot: &[u8]) -> Option<(Option<Tree>, Option<Tree>)> {
    let checksum = u128::from_le_bytes(slot[SLOT - 16..].try_into().ok()?);
    if xxh3_128(&slot[..SLOT - 16]) != checksum {
        return None;
    }
    let root = |there: u8, at: usize| (there != 0).then(|| read_root(&slot[at..], NAMES));
    Some((root(slot[1], 8), root(slot[2], 40)))
}

fn read_root(root: &[u8], widths: Widths) -> Tree {
    let entries = u64::from_le_bytes(root[24..32].try_into().expect("eight bytes"));
    Tree { root: read_link(root, &root[8..]), entries, widths }
}

/// The tree of a described table: `Some(None)` if it is empty.
fn read_definition(bytes: &[u8]) -> Option<Option<Tree>> {
    const ROOT: usize = 10;
    let width = |at: usize| {
        let (there, width) = (*bytes.get(at)?, u32_at(bytes, at + 1)? as usize);
        Some((there != 0).then_some(width))
    };
    let widths = Widths { key: width(ROOT + 32)?, value: width(ROOT + 37)? };
    Some((bytes[ROOT - 1] != 0).then(|| read_root(&bytes[ROOT..ROOT + 32], widths)))
}
