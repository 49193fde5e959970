//! The service as a client sees it.

use std::sync::Arc;

use ::http::{Method, Request, StatusCode};
use dragonfly_core::boot::Fate;
use http_body_util::BodyExt as _;

use super::*;
use crate::testing::{Observer, Provider};

struct Bench {
    http: BootHttp,
    provider: Arc<Provider>,
    observer: Arc<Observer>,
    dir: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

impl Bench {
    fn new(fate: Option<Fate>) -> Self {
        let (provider, observer) = (Arc::new(Provider::with(fate)), Arc::new(Observer::default()));
        let dir = tempfile::tempdir().unwrap();
        let files = Arc::new(BootFiles::new(dir.path()));
        let http = BootHttp::new(provider.clone(), observer.clone(), files, None);
        Self { http, provider, observer, dir }
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        request.extensions_mut().insert(PeerAddr("[::ffff:10.0.0.7]:4242".parse().unwrap()));
        request.extensions_mut().insert(LocalAddr("10.0.0.1:3000".parse().unwrap()));
        let response = self.http.clone().call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(Method::GET, path, headers).await
    }
}

const MAC: &str = "/boot/52:54:00:ab:cd:01";

#[tokio::test]
async fn a_script_names_the_host_that_was_asked() {
    let bench = Bench::new(Some(Fate::Discover));
    let script = |answer: Answer| String::from_utf8(answer.body).unwrap();
    let answer = bench.get("/boot/52-54-00-AB-CD-01", &[("host", "boot.test:3000")]).await;
    assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::OK, "no-store"));
    assert!(script(answer).contains("http://boot.test:3000/boot/52:54:00:ab:cd:01/identity"));
    // No host, or a strange one: the address that the connection came to.
    assert!(script(bench.get(MAC, &[]).await).contains("http://10.0.0.1:3000/boot/files"));
    assert!(script(bench.get(MAC, &[("host", "${evil}")]).await).contains("http://10.0.0.1:3000/boot/files"));
    let asked = bench.provider.asked.lock().unwrap()[0].clone();
    assert_eq!((asked.from, asked.to), (Some([10, 0, 0, 7].into()), Some("10.0.0.1:3000".parse().unwrap())));
    assert_eq!(bench.observer.whats(), ["boot.script"; 3]);
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let bench = Bench::new(None);
    let answer = bench.get(MAC, &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let bench = Bench::new(Some(Fate::Local));
    for (path, status, word) in [
        ("/boot/52:54:00:ab:cd:01/identity", StatusCode::NOT_FOUND, "no identity"),
        ("/boot/hello", StatusCode::BAD_REQUEST, "not a MAC"),
        ("/boot/files/none", StatusCode::NOT_FOUND, "`none`"),
        ("/boot/files/../../etc/passwd", StatusCode::BAD_REQUEST, "not the name"),
        ("/boot/files/%2e%2e/%2e%2e/etc/passwd", StatusCode::BAD_REQUEST, "not the name"),
        ("/boot/52:54:00:ab:cd:01/mage.efi", StatusCode::NOT_FOUND, "mage.efi"),
        ("/elsewhere", StatusCode::NOT_FOUND, "no such resource"),
    ] {
        let answer = bench.get(path, &[]).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert!(answer.status == status && text.contains(word), "{path}: {} {text}", answer.status);
    }
    let answer = bench.ask(Method::POST, MAC, &[]).await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    assert_eq!(bench.observer.whats(), ["boot.refused"; 5], "nothing is served; what a machine missed is known");
}

#[tokio::test]
async fn firmware_is_offered_where_there_is_some_and_may_be_absent() {
    let bench = Bench::new(Some(Fate::Discover));
    let script = async || String::from_utf8(bench.get(MAC, &[]).await.body).unwrap();
    assert!(!script().await.contains("firmware"));
    std::fs::create_dir(bench.dir.path().join("firmware")).unwrap();
    bench.write("firmware/0110778070.img", b"blob");
    assert!(script().await.contains("${files}/firmware/${netX/busid:hexraw}.img"));
    let asked = bench.observer.whats().len();
    let answer = bench.get("/boot/files/firmware/018086100e.img", &[]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.observer.whats().len(), asked, "a card that needs none has missed nothing");
    assert_eq!(bench.get("/boot/files/firmware/0110778070.img", &[]).await.body, b"blob");
    assert_eq!(bench.get("/boot/files/firmware.img", &[]).await.status, StatusCode::NOT_FOUND);
    let after = bench.observer.whats();
    assert!(after[asked..].contains(&"boot.file") && after.last() == Some(&"boot.refused"), "{after:?}");
}

#[tokio::test]
async fn files_have_ranges_tags_and_heads() {
    let bench = Bench::new(Some(Fate::Local));
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    bench.write("vmlinuz", &content);
    let path = "/boot/files/vmlinuz";
    let whole = bench.get(path, &[]).await;
    assert_eq!((whole.status, whole.header("content-length")), (StatusCode::OK, "1000000"));
    assert!(whole.body == content && whole.header("accept-ranges") == "bytes");
    let tag = whole.header("etag").to_owned();

    let head = bench.ask(Method::HEAD, path, &[("range", "bytes=0-9")]).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (StatusCode::OK, "1000000", 0));

    let part = bench.get(path, &[("range", "bytes=999990-"), ("if-range", &tag)]).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.header("content-range"), "bytes 999990-999999/1000000");
    assert_eq!((part.header("content-length"), &part.body[..]), ("10", &content[999_990..]));

    let stale = bench.get(path, &[("range", "bytes=5-"), ("if-range", "\"other\"")]).await;
    assert_eq!((stale.status, stale.body.len()), (StatusCode::OK, 1_000_000));

    let beyond = bench.get(path, &[("range", "bytes=1000000-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.header("content-range"), "bytes */1000000");

    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let same = bench.get(path, &[("if-none-match", &known)]).await;
        assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
    }
    bench.write("new", &content[..500]);
    std::fs::rename(bench.dir.path().join("new"), bench.dir.path().join("vmlinuz")).unwrap();
    let changed = bench.get(path, &[("if-none-match", &tag)]).await;
    assert_eq!((changed.status, changed.body.len()), (StatusCode::OK, 500));
}

#[tokio::test]
async fn each_boot_has_its_own_identity() {
    let bench = Bench::new(Some(Fate::Discover));
    let path = format!("{MAC}/identity");
    let (first, second) = (bench.get(&path, &[]).await, bench.get(&path, &[]).await);
    let holds = |answer: &Answer, token: &str| answer.body.windows(token.len()).any(|w| w == token.as_bytes());
    assert!(holds(&first, "token-1") && holds(&second, "token-2"));
    assert_eq!(first.header("cache-control"), "no-store");
    let head = bench.ask(Method::HEAD, &path, &[]).await;
    assert_eq!((head.header("content-length"), head.body.len()), (first.header("content-length"), 0));
    assert_eq!(bench.observer.whats(), ["boot.identity"; 2]);
}

#[tokio::test]
async fn the_unified_kernel_carries_the_identity_in_its_place() {
    let bench = Bench::new(Some(Fate::Discover));
    let mut image: Vec<u8> = (0..600_000u32).map(|n| (n % 253) as u8 | 1).collect();
    image[300_000..301_024].fill(0);
    bench.write("mage.efi", &image);
    let path = format!("{MAC}/mage.efi");
    let answer = bench.get(&path, &[]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "no manifest");
    bench.write("manifest.json", br#"{"ukiIdentity":{"offset":599000,"length":8192}}"#);
    assert_eq!(bench.get(&path, &[]).await.status, StatusCode::INTERNAL_SERVER_ERROR, "beyond the end");
    bench.write("manifest.json", br#"{"ukiIdentity":{"offset":300000,"length":16}}"#);
    let answer = bench.get(&path, &[]).await;
    assert!(String::from_utf8(answer.body).unwrap().contains("does not fit"));
    bench.write("manifest.json", br#"{"ukiIdentity":{"offset":300000,"length":1024}}"#);

    let answer = bench.get(&path, &[]).await;
    assert_eq!((answer.status, answer.header("content-length"), answer.header("etag")), (StatusCode::OK, "600000", ""));
    assert_eq!((&answer.body[..300_000], &answer.body[301_024..]), (&image[..300_000], &image[301_024..]));
    let inside = &answer.body[300_000..301_024];
    assert!(inside.starts_with(b"070701") && inside.windows(6).any(|w| w == b"token-"));

    let part = bench.get(&path, &[("range", "bytes=300000-300005")]).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &b"070701"[..]));
    let head = bench.ask(Method::HEAD, &path, &[]).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (StatusCode::OK, "600000", 0));
}
