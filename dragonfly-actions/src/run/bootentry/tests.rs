use super::*;
use proptest::prelude::*;

/// A file system in memory.
struct Memory(BTreeMap<String, String>);

impl Memory {
    fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }
}

impl Files for Memory {
    fn read(&self, path: &str) -> Option<String> {
        self.0.get(path).cloned()
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let inside = |path: &str| path.strip_prefix(directory)?.strip_prefix('/').map(str::to_owned);
        self.0.keys().filter_map(|path| inside(path)).filter(|name| !name.contains('/')).collect()
    }
}

fn entry(title: &str, kernel: &str, initrds: &[&str], cmdline: &str, from: &str) -> BootEntry {
    BootEntry {
        title: title.into(),
        kernel: kernel.into(),
        initrds: initrds.iter().map(|i| (*i).to_owned()).collect(),
        cmdline: cmdline.into(),
        from: from.into(),
    }
}

/// As Debian 12's grub-mkconfig lays it out.
const DEBIAN: &str = r#"
### BEGIN /etc/grub.d/00_header ###
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi

if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option

function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
  fi
}
if loadfont unicode ; then
  set gfxmode=auto
fi
for i in 1 2; do echo $i; done
terminal_output gfxterm
if [ "${recordfail}" = 1 ] ; then
  set timeout=30
else
  if [ x$feature_timeout_style = xy ] ; then
    set timeout_style=menu
    set timeout=5
  # Fallback normal timeout code in case the timeout_style feature is
  # unavailable.
  else
    set timeout=5
  fi
fi
### END /etc/grub.d/00_header ###
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux --class os $menuentry_id_option 'gnulinux-simple-1b2c' {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root 1b2c
	echo	'Loading Linux 6.1.0-13-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-13-amd64 root=UUID=1b2c ro  quiet
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-6.1.0-13-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1b2c' {
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-13-amd64' --class os $menuentry_id_option 'gnulinux-6.1.0-13-amd64-advanced-1b2c' {
		linux	/boot/vmlinuz-6.1.0-13-amd64 root=UUID=1b2c ro  quiet
		initrd	/boot/initrd.img-6.1.0-13-amd64
	}
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-13-amd64 (recovery mode)' --class os $menuentry_id_option 'gnulinux-6.1.0-13-amd64-recovery-1b2c' {
		linux	/boot/vmlinuz-6.1.0-13-amd64 root=UUID=1b2c ro single
		initrd	/boot/initrd.img-6.1.0-13-amd64
	}
}
### BEGIN /etc/grub.d/30_uefi-firmware ###
if [ "$grub_platform" = "efi" ]; then
	fwsetup --is-supported
	menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' { fwsetup }
fi
menuentry 'Windows' { chainloader (hd0,gpt1)/EFI/Microsoft/Boot/bootmgfw.efi }
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
fi
"#;

/// As Ubuntu's cloud images have it: /boot of its own, functions, a choice inside the entry.
const UBUNTU: &str = r#"
set default="${saved_entry}"
set vt_handoff=vt.handoff=7
set partuuid='9f-7'
menuentry 'Ubuntu' --id=ubuntu {
	recordfail
	gfxmode $linux_gfx_mode
	if [ "${initrdfail}" = 1 ]; then
	  linux	/vmlinuz-5.15.0-86-generic root=PARTUUID=${partuuid} ro console=tty1 console=ttyS0
	  initrd	/initrd.img-5.15.0-86-generic
	elif [ ! -z "$partuuid" -a "$partuuid" != "none" ]; then
	  linux ($root)/vmlinuz-5.15.0-86-generic "root=PARTUUID=$partuuid" ro console=tty1 \
	    $vt_handoff "dyndbg=file drivers/x.c +p"
	  initrd /ucode.img (hd0,gpt2)/initrd.img-5.15.0-86-generic
	fi
	initrdfail
}
"#;

/// As Fedora has it: entries beside the script, arguments from the environment block.
const FEDORA: &str = r#"
set pager=1
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="${saved_entry}"
fi
if [ -z "${kernelopts}" ]; then
  set kernelopts="root=/dev/none ro "
fi
insmod blscfg
blscfg
"#;
const FEDORA_ENVIRONMENT: &str = "# GRUB Environment Block\nsaved_entry=abc-6.5.6-300.fc39.x86_64\nkernelopts=root=UUID=77 ro rootflags=subvol=root \n###########";

#[test]
fn finds_what_real_configurations_boot() {
    let grub = "/boot/grub/grub.cfg";
    let old = "/boot/vmlinuz-6.1.0-13-amd64";
    let image = "/boot/initrd.img-6.1.0-13-amd64";
    let fedora = [
        ("/boot/grub2/grub.cfg", FEDORA),
        ("/boot/grub2/grubenv", FEDORA_ENVIRONMENT),
        (
            "/boot/loader/entries/abc-6.5.6-300.fc39.x86_64.conf",
            "title Fedora Linux (6.5.6)\nversion 6.5.6-300.fc39.x86_64\nlinux /vmlinuz-6.5.6\ninitrd /initramfs-6.5.6.img $tuned_initrd\noptions $kernelopts rhgb quiet\ngrub_users $grub_users\n",
        ),
        (
            "/boot/loader/entries/abc-6.6.0-100.fc39.x86_64.conf",
            "title Fedora Linux (6.6.0)\nversion 6.6.0-100.fc39.x86_64\nlinux /vmlinuz-6.6.0\ninitrd /initramfs-6.6.0.img\noptions root=UUID=77 ro\noptions quiet\n",
        ),
    ];
    let systemd_boot = [
        ("/loader/loader.conf", "timeout 3\ndefault arch.conf\n"),
        (
            "/loader/entries/arch.conf",
            "title\tArch Linux\nlinux\t/vmlinuz-linux\ninitrd\t/intel-ucode.img\ninitrd\t/initramfs-linux.img\noptions\troot=PARTUUID=5 rw\n",
        ),
        ("/loader/entries/zen.conf", "title Zen\nlinux /vmlinuz-zen\n# no more\n"),
    ];
    let alpine = [(
        "/boot/extlinux.conf",
        "DEFAULT menu.c32\nPROMPT 0\nMENU TITLE Alpine\nTIMEOUT 10\nLABEL virt\n  MENU DEFAULT\n  MENU LABEL Linux ^virt\n  LINUX vmlinuz-virt\n  INITRD initramfs-virt\n  APPEND root=UUID=9 modules=ext4 rootfstype=ext4\nMENU SEPARATOR\nlabel hdt\n  kernel hdt.c32\n",
    )];
    let old_style = [(
        "/boot/syslinux/syslinux.cfg",
        "default rescue\nappend quiet\nlabel linux\n kernel /vmlinuz\n append initrd=/a.img,/b.img root=/dev/sda1 ro\nlabel rescue\n linux ../bzImage\n",
    )];
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>, BootEntry);
    let debian = [(grub, DEBIAN)];
    let next =
        [(grub, DEBIAN), ("/boot/grub/grubenv", "# GRUB Environment Block\nnext_entry=gnulinux-advanced-1b2c>1\n####")];
    let ubuntu = [("/grub/grub.cfg", UBUNTU)];
    let recovery = "Debian GNU/Linux, with Linux 6.1.0-13-amd64 (recovery mode)";
    let table: [Case<'_>; 13] = [
        ("debian", &debian, None, entry("Debian GNU/Linux", old, &[image], "root=UUID=1b2c ro quiet", grub)),
        ("debian, next boot", &next, None, entry(recovery, old, &[image], "root=UUID=1b2c ro single", grub)),
        (
            "debian, by id",
            &debian,
            Some("gnulinux-6.1.0-13-amd64-recovery-1b2c"),
            entry(recovery, old, &[image], "root=UUID=1b2c ro single", grub),
        ),
        ("debian, by title", &debian, Some(recovery), entry(recovery, old, &[image], "root=UUID=1b2c ro single", grub)),
        (
            "debian, a submenu opens with its first line",
            &debian,
            Some("1"),
            entry("Debian GNU/Linux, with Linux 6.1.0-13-amd64", old, &[image], "root=UUID=1b2c ro quiet", grub),
        ),
        (
            "ubuntu",
            &ubuntu,
            None,
            entry(
                "Ubuntu",
                "/vmlinuz-5.15.0-86-generic",
                &["/ucode.img", "/initrd.img-5.15.0-86-generic"],
                "root=PARTUUID=9f-7 ro console=tty1 vt.handoff=7 \"dyndbg=file drivers/x.c +p\"",
                "/grub/grub.cfg",
            ),
        ),
        (
            "fedora, saved entry",
            &fedora,
            None,
            entry(
                "Fedora Linux (6.5.6)",
                "/vmlinuz-6.5.6",
                &["/initramfs-6.5.6.img"],
                "root=UUID=77 ro rootflags=subvol=root rhgb quiet",
                "/boot/grub2/grub.cfg",
            ),
        ),
        (
            "fedora, newest first",
            &fedora,
            Some("0"),
            entry(
                "Fedora Linux (6.6.0)",
                "/vmlinuz-6.6.0",
                &["/initramfs-6.6.0.img"],
                "root=UUID=77 ro quiet",
                "/boot/grub2/grub.cfg",
            ),
        ),
        (
            "systemd-boot",
            &systemd_boot,
            None,
            entry(
                "Arch Linux",
                "/vmlinuz-linux",
                &["/intel-ucode.img", "/initramfs-linux.img"],
                "root=PARTUUID=5 rw",
                "/loader/entries",
            ),
        ),
        ("systemd-boot, other", &systemd_boot, Some("zen"), entry("Zen", "/vmlinuz-zen", &[], "", "/loader/entries")),
        (
            "extlinux",
            &alpine,
            None,
            entry(
                "Linux virt",
                "/boot/vmlinuz-virt",
                &["/boot/initramfs-virt"],
                "root=UUID=9 modules=ext4 rootfstype=ext4",
                "/boot/extlinux.conf",
            ),
        ),
        (
            "syslinux",
            &old_style,
            None,
            entry("rescue", "/boot/syslinux/../bzImage", &[], "quiet", "/boot/syslinux/syslinux.cfg"),
        ),
        (
            "syslinux, initrd in append",
            &old_style,
            Some("linux"),
            entry("linux", "/vmlinuz", &["/a.img", "/b.img"], "root=/dev/sda1 ro", "/boot/syslinux/syslinux.cfg"),
        ),
    ];
    for (name, files, wanted, want) in table {
        assert_eq!(find(&Memory::of(files), wanted), Ok(want), "{name}");
    }
}

#[test]
fn errors_name_what_is_wrong_and_what_to_do() {
    let grub = |text: &'static str| [("/boot/grub/grub.cfg", text)];
    type Case<'a> = (Vec<(&'a str, &'a str)>, Option<&'a str>, &'a str);
    let table: Vec<Case<'_>> = vec![
        (vec![], None, "looked for /boot/grub/grub.cfg, "),
        (grub("menuentry 'a {\n").into(), None, "/boot/grub/grub.cfg:1: the quotation mark ' is not closed"),
        (
            grub("a\nif true; then\nmenuentry x { linux /k\n}\n").into(),
            None,
            "the script ends where `elif` or `else` or `fi`",
        ),
        (grub("x\n}\n").into(), None, "`}` is unexpected"),
        (grub("menuentry x\ny\n").into(), None, "/boot/grub/grub.cfg:1: `{` is expected"),
        (grub("set default=0\n").into(), None, "has no boot entries"),
        (grub("submenu a { true }\n").into(), None, "/boot/grub/grub.cfg: a has no boot entries"),
        (grub(DEBIAN).into(), Some("Windows"), "`Windows` of /boot/grub/grub.cfg loads no Linux kernel"),
        (
            grub(DEBIAN).into(),
            Some("Plan 9"),
            "no entry `Plan 9`; there are: `Debian GNU/Linux`, `Debian GNU/Linux, with",
        ),
    ];
    for (files, wanted, want) in table {
        let said = find(&Memory::of(&files), wanted).unwrap_err().to_string();
        assert!(said.contains(want), "{files:?}: {said}");
    }
    let deep = format!("{}{}", "if true; then\n".repeat(100), "fi\n".repeat(100));
    let said = find(&Memory::of(&[("/boot/grub/grub.cfg", &deep)]), None).unwrap_err().to_string();
    assert!(said.contains("deep in one another"), "{said}");
}

#[test]
fn a_script_that_grows_its_words_stays_bounded() {
    let mut text = "a=xxxxxxxxxxxxxxxx\n".to_owned();
    for _ in 0..200 {
        text.push_str("a=\"$a$a\"\n");
    }
    text.push_str("menuentry m { linux /k $a\n}\n");
    let found = find(&Memory::of(&[("/boot/grub/grub.cfg", &text)]), None).unwrap();
    assert!(found.cmdline.len() <= 16 << 10, "{}", found.cmdline.len());
    let many = "menuentry m { linux /k\n}\n".repeat(5000);
    assert_eq!(find(&Memory::of(&[("/boot/grub/grub.cfg", &many)]), Some("999")).unwrap().kernel, "/k");
    assert!(find(&Memory::of(&[("/boot/grub/grub.cfg", &many)]), Some("1000")).is_err());
}

proptest! {
    #[test]
    fn strangers_cannot_make_it_panic(text in r#"([ \n;{}'"$\\a=>()\[\]#-]|if |then |else |fi |menuentry |submenu |linux |set |function |\$\{a\}){0,60}"#, wanted in proptest::option::of("[a-c0-9>]{0,5}")) {
        for path in ["/boot/grub/grub.cfg", "/loader/entries/a.conf", "/syslinux.cfg"] {
            let _ = find(&Memory::of(&[(path, &text), ("/boot/grub/grubenv", &text)]), wanted.as_deref());
        }
    }

    #[test]
    fn quoted_words_come_back_as_they_were(words in proptest::collection::vec("[ -&(-~]{1,12}", 1..6)) {
        // Whatever stands in single quotes is the word, blanks and dollars included.
        let quoted: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
        let text = format!("menuentry m {{\nlinux /k {}\n}}\n", quoted.join(" "));
        let want: Vec<String> = words
            .iter()
            .map(|w| if w.contains(char::is_whitespace) { format!("\"{w}\"") } else { w.clone() })
            .collect();
        let found = find(&Memory::of(&[("/boot/grub/grub.cfg", &text)]), None).unwrap();
        prop_assert_eq!(found.cmdline, want.join(" "));
    }
}
