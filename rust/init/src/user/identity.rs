//! Who the user process is: `USER` of the image, read against the image's own passwd and group.
//!
//! The rules are those of Docker (moby/sys `user.GetExecUser`): digits are a number and never a name; a
//! number need not be in passwd, a name must; with an explicit group the memberships in group(5) do not
//! count. The home folder is that of the first account with the user's number (runc,
//! `libcontainer/init_linux.go`), and may be empty there. The primary group is among
//! the others too, as in Docker since CVE-2022-36109. Lines that are not well formed are passed over,
//! as libc does.

use thiserror::Error;

/// Largest passwd or group file read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most groups of one process.
pub const MAX_GROUPS: usize = 1024;

/// Why `USER` cannot be honored.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// More than [`MAX_GROUPS`].
    #[error("USER is a member of more than {MAX_GROUPS} groups")]
    TooManyGroups,
    /// Not in `/etc/group` of the image.
    #[error("USER names a group that is not in the image's /etc/group")]
    UnknownGroup,
    /// Not in `/etc/passwd` of the image.
    #[error("USER names a user that is not in the image's /etc/passwd")]
    UnknownUser,
}

/// Who the user process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, the primary one among them.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
}

impl Identity {
    /// Resolves `user` (empty, `name`, `uid`, `name:group`, `uid:gid`); `groups` are added.
    ///
    /// # Errors
    ///
    /// [`IdentityError`].
    pub fn resolve(
        user: &str,
        groups: &[u32],
        passwd: &str,
        group: &str,
    ) -> Result<Self, IdentityError> {
        let (name, group_name) = match user.split_once(':') {
            Some((name, group_name)) => (name, Some(group_name)),
            None => (user, None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let number = name.parse::<u32>().ok();
        let account = accounts(passwd)
            .find(|account| number.map_or(account.name == name, |uid| account.uid == uid));
        let (uid, gid, login) = match (account, number) {
            (Some(found), _) => (found.uid, found.gid, Some(found.name)),
            (None, Some(uid)) => (uid, 0, None),
            (None, None) => return Err(IdentityError::UnknownUser),
        };
        let home = accounts(passwd).find(|account| account.uid == uid);
        let mut identity = Self {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.map_or("/", |account| account.home).to_owned(),
        };
        match group_name.filter(|name| !name.is_empty()) {
            Some(name) => identity.gid = group_id(name, group)?,
            None => {
                if let Some(login) = login {
                    identity.groups.extend(memberships(login, group));
                }
            }
        }
        identity.groups.push(identity.gid);
        identity.groups.sort_unstable();
        identity.groups.dedup();
        if identity.groups.len() > MAX_GROUPS {
            return Err(IdentityError::TooManyGroups);
        }
        Ok(identity)
    }
}

fn group_id(name: &str, group: &str) -> Result<u32, IdentityError> {
    name.parse()
        .ok()
        .or_else(|| {
            group_lines(group)
                .find(|line| line.name == name)
                .map(|line| line.gid)
        })
        .ok_or(IdentityError::UnknownGroup)
}

fn memberships<'a>(login: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group_lines(group)
        .filter(move |line| line.members.split(',').any(|member| member == login))
        .map(|line| line.gid)
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _) = (fields.next()?, fields.next()?);
        Some(Account {
            name: Some(name).filter(|name| !name.is_empty())?,
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
            home: fields.nth(1).unwrap_or_default(),
        })
    })
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_lines(group: &str) -> impl Iterator<Item = GroupLine<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _) = (fields.next()?, fields.next()?);
        Some(GroupLine {
            name: Some(name).filter(|name| !name.is_empty())?,
            gid: fields.next()?.parse().ok()?,
            members: fields.next().unwrap_or_default(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        nonsense\n\
        app:x:1000:1001:App:/home/app:/bin/sh\n\
        short:x:7:8\n\
        twin:x:1000:44::/home/twin:/bin/sh\n\
        4242:x:9:9::/home/digits:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:app,other\nlogs:x:44:app\napp:x:1001:\n99:x:98:\n";

    fn resolved(user: &str) -> Result<Identity, IdentityError> {
        Identity::resolve(user, &[], PASSWD, GROUP)
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.into(),
        }
    }

    #[test]
    fn every_form_of_user_is_what_docker_makes_of_it() {
        assert_eq!(resolved("").unwrap(), identity(0, 0, &[0], "/root"));
        assert_eq!(
            resolved("app").unwrap(),
            identity(1000, 1001, &[33, 44, 1001], "/home/app")
        );
        assert_eq!(
            resolved("1000").unwrap(),
            identity(1000, 1001, &[33, 44, 1001], "/home/app")
        );
        assert_eq!(
            resolved("app:www").unwrap(),
            identity(1000, 33, &[33], "/home/app")
        );
        assert_eq!(
            resolved("app:99").unwrap(),
            identity(1000, 99, &[99], "/home/app")
        );
        assert_eq!(
            resolved("65534:65533").unwrap(),
            identity(65534, 65533, &[65533], "/")
        );
        assert_eq!(resolved("4242").unwrap(), identity(4242, 0, &[0], "/"));
        assert_eq!(resolved("short").unwrap(), identity(7, 8, &[8], ""));
    }

    /// The daemon turns the name into a number, and the runtime looks the number up.
    #[test]
    fn home_is_that_of_the_first_account_with_the_number() {
        assert_eq!(
            resolved("twin").unwrap(),
            identity(1000, 44, &[44], "/home/app")
        );
    }

    #[test]
    fn names_that_do_not_exist_are_refused() {
        assert_eq!(resolved("nobody"), Err(IdentityError::UnknownUser));
        assert_eq!(resolved("app:nogroup"), Err(IdentityError::UnknownGroup));
    }

    /// `FROM scratch` has neither file.
    #[test]
    fn numbers_need_no_files() {
        let found = Identity::resolve("1000:1000", &[5], "", "").unwrap();
        assert_eq!(
            (found.uid, found.gid, found.groups),
            (1000, 1000, vec![5, 1000])
        );
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(user: String, passwd: String, group: String) {
            let _ = Identity::resolve(&user, &[], &passwd, &group);
        }
    }
}
