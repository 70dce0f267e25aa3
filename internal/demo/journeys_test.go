package demo

import (
	"context"
	"crypto/hpke"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/telemetry"
)

// v3 is the release of the journeys.
const v3 = "1.3.0"

// told waits until a log tells of a subject, by whom.
func (w *world) told(t *testing.T, log, kind, subject, actor string) {
	t.Helper()
	ok, saw := wait(t.Context(), patience, func() (bool, string) {
		p, err := w.people["ada"].Facts(t.Context(), fleet.FactQuery{Log: log, Kind: kind, Subject: subject, Limit: 1})
		if err != nil || len(p.Items) == 0 {
			return false, observed(err, "nothing")
		}
		return p.Items[0].Actor == actor, "by " + p.Items[0].Actor
	})
	if !ok {
		t.Errorf("the ledger tells of %s of %s: %s, not by %s", kind, subject, saw, actor)
	}
}

// state waits for a device's state in the API.
func (w *world) state(t *testing.T, a *device, want string) {
	t.Helper()
	if ok, saw := wait(t.Context(), patience, func() (bool, string) {
		v, err := w.seen(t.Context(), a.id)
		return err == nil && v.Device.State == want, tell(v, err)
	}); !ok {
		t.Errorf("the API says of the device: %s; not %s", saw, want)
	}
}

func firstAdministrator(t *testing.T, w *world) {
	p := w.visitor(t)
	link := regexp.MustCompile(`/login\?once=\S+`).FindString(w.welcome)
	if link == "" {
		t.Fatalf("init prints no link: %s", w.welcome)
	}
	p.visit(link)
	p.sees("signs you in on this browser, once")
	p.press("Sign in")
	p.sees("person:admin", "Fleet")
	p.addPasskey("blue key")
	p.press("Sign out")
	p.sees("Sign in with a passkey")
	p.visit("/devices")
	p.at("/login")
	p.press("Sign in with a passkey")
	p.sees("person:admin", "Fleet")
	w.told(t, "control", "access.changed", "person:admin", "person:admin")
	p.visit("/account")
	p.press("Sign out")
	p.sees("Sign in with a passkey")
	p.visit(link)
	p.press("Sign in")
	p.sees("is not valid, has expired, or was used already")
}

func newcomer(t *testing.T, w *world) {
	if picturing() {
		w.missed(t)
	}
	p := w.signedIn(t, "rene")
	p.sees("need a look:", "failed to prove what it runs", "1 device in quarantine")
	p.picture("overview", "light")
	p.picture("overview-dark", "dark")
	if order := look[[]string](p, `[...document.querySelectorAll("#worst ~ .scroll tbody .pill, section[aria-labelledby=worst] tbody .pill")].map((e) => clean(e.innerText))`); len(order) == 0 || order[0] != "critical" && order[0] != "high" {
		t.Errorf("the findings in their order: %q", order)
	}
	p.follow("section[aria-labelledby=worst] tbody a")
	p.at("/devices/" + w.altered.id)
	p.sees("In quarantine: it talks to nobody but Hallmark", "contraindicated")
	p.picture("device", "light")
	p.picture("device-dark", "dark")
	p.follow(".headline a.proof")
	p.at("/ledger/events/")
	p.sees("device.quarantined", "Proven: this entry is in the ledger", "2 of 2 witnesses needed")
	p.picture("proof", "light")
	at := strings.Split(look[string](p, "location.pathname"), "/")
	f, err := w.people["rene"].Facts(t.Context(), fleet.FactQuery{Log: "events", Kind: "device.quarantined", Subject: w.altered.id, Limit: 1})
	if err != nil || len(f.Items) != 1 || len(at) != 4 {
		t.Fatalf("%v, %d facts, at %v", err, len(f.Items), at)
	}
	p.visit("/findings")
	p.sees("critical", "What is wrong, the worst first")
	p.picture("findings", "light")
	p.notOffered("Close") // a viewer is not offered what he may not do
}

func quarantine(t *testing.T, w *world) {
	p := w.signedIn(t, "olga")
	p.visit("/devices/" + w.well.id)
	p.sees("Active", "Live")
	p.stays()
	p.press("Quarantine")
	p.asked("Quarantine this device")
	p.fill("Reason, for the ledger", "its neighbour was altered")
	p.press("Quarantine")
	if look[bool](p, `!document.querySelector("dialog[open]") `) {
		t.Error("quarantined without the device's name being typed")
	}
	p.typesWhatIsAsked()
	p.press("Quarantine")
	p.closed()
	p.sees("In quarantine: it talks to nobody but Hallmark")
	w.state(t, w.well, "quarantined")
	w.told(t, "events", "device.quarantined", w.well.id, "device:"+w.well.id)
	p.press("Release")
	p.asked("End the quarantine")
	p.fill("Reason, for the ledger", "it is as it should be")
	p.press("Release")
	p.closed()
	p.until("it to be active", `seen(".headline b").innerText === "Active"`)
	p.stayed()
	w.state(t, w.well, "active")
}

func otherWays(t *testing.T, w *world) {
	p := w.signedIn(t, "olga")
	p.do("live in Kolkata", chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Kolkata"})
		return err
	}))
	p.visit("/devices/" + w.well.id)
	p.until("times in the zone of who looks", `(() => { const e = seen("main time"), z = new Date(e.dateTime); return e.title.endsWith("Z") && e.innerText.includes(z.toLocaleTimeString(undefined, { timeZone: "Asia/Kolkata", hour: "2-digit", minute: "2-digit", second: "2-digit" })); })()`)
	keyboardOnly(t, p, w)

	p.do("switch script off", chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	for path, words := range map[string][]string{
		"/": {"1 device in quarantine", "Worst findings"}, "/devices/" + w.altered.id: {"In quarantine", "From the factory to now", "Z"},
		"/rollouts/update-1": {"Completed: every wave has proven itself"}, "/ledger/events/0": {"Script is needed for this", "hallmark fact show events 0"},
	} {
		p.visit(path)
		p.sees(words...)
	}
	p.visit("/devices/" + w.altered.id)
	p.sees("Actions need script here; the hallmark command does them too.")
}

func keyboardOnly(t *testing.T, p *person, w *world) {
	t.Helper()
	p.key(kb.Tab)
	if at := look[string](p, "clean(document.activeElement.innerText)"); at != "Skip to the content" {
		t.Errorf("the first Tab leads to %q", at)
	}
	p.key(kb.Enter)
	p.until("the content to have the focus", `document.activeElement.id === "main"`)
	p.tabTo("Ask for evidence")
	p.key(kb.Enter)
	p.asked("Ask the device to prove its state")
	if at := look[string](p, "document.activeElement.name"); at != "reason" {
		t.Errorf("the dialog opens with the focus on %q", at)
	}
	p.key(kb.Escape)
	p.closed()
	p.until("the focus to be back", `clean(document.activeElement.innerText) === "Ask for evidence"`)
	p.key(kb.Enter)
	p.asked("Ask the device to prove its state")
	p.key("keys are enough")
	p.tabTo("Cancel")
	p.tabTo("Ask for evidence")
	p.key(kb.Enter)
	p.closed()
	p.sees("Ask for evidence: done.")
	p.until("the focus to be back", `clean(document.activeElement.innerText) === "Ask for evidence"`)
}

// hallmark runs the program as somebody, with the passphrase of the offline keys.
func (w *world) hallmark(t *testing.T, who string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), w.bin.hallmark, args...)
	cmd.Env = append(os.Environ(), "HALLMARK_URL="+w.demo.console, "HALLMARK_TOKEN="+w.tokens[who], "HALLMARK_PASSPHRASE="+w.pass)
	out, err := output(cmd)
	if err != nil {
		t.Fatalf("%s: %v", who, err)
	}
	return out
}

func fourEyesRelease(t *testing.T, w *world) {
	app, err := w.compile(t.Context(), "./internal/demo/firmware", "-X main.version="+v3, false)
	if err != nil {
		t.Fatal(err)
	}
	w.hallmark(t, "rita", "release", "create", "--product", productID, "--version", v3, "--counter", "2", "--file", "app="+app+":exec",
		"--rollback-to", productID+"@"+v2, "--health", "socket")
	w.approve(t, "alice")
	p := w.byLink(t, "rita", w.link)
	p.addPasskey("green key")
	p.visit("/releases")
	p.press(v3)
	p.sees("1 of 2 approvals: 1 missing", "Live")
	p.notOffered("Publish")
	p.stays()
	w.approve(t, "bob")
	p.sees("2 approvals: enough", "not yet: no device takes it")
	p.stayed()
	w.stale(t, "rita")
	p.press("Publish")
	p.asked("Publish this release")
	p.typesWhatIsAsked()
	p.press("Publish")
	p.sees("Confirm with your passkey", "or sign in again")
	r := w.releaseOf(t, v3)
	if r.Status != release.Proposed {
		t.Errorf("without a proof of who asks: %s", r.Status)
	}
	p.press("Confirm with your passkey")
	p.closed()
	p.sees("in the control log: devices can check it", "Publish: done.")
	if r = w.releaseOf(t, v3); r.Status != release.Published || len(r.Approvals) != 2 {
		t.Errorf("the API says: %s with %d approvals", r.Status, len(r.Approvals))
	}
	w.told(t, "control", "release.published", productID+"-"+v3, "person:rita")
}

func (w *world) approve(t *testing.T, who string) {
	t.Helper()
	said := w.hallmark(t, who, "release", "approve", productID+"@"+v3, "--key", filepath.Join(w.layout.Offline(), "approver-"+who+".key"))
	if !strings.Contains(said, "person:"+who) {
		t.Errorf("%s approves: %s", who, said)
	}
}

func (w *world) releaseOf(t *testing.T, version string) httpapi.ReleaseView {
	t.Helper()
	list, err := w.people["rita"].Releases(t.Context(), productID)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(r httpapi.ReleaseView) bool { return r.Manifest.Version == version })
	if i < 0 {
		t.Fatalf("no release %s", version)
	}
	return list[i]
}

func liveRollout(t *testing.T, w *world) {
	for a, version := range map[*device]string{w.altered: v2, w.silent: v1} { // who was away comes back: one to be made anew, one as it was
		if err := a.on(); err != nil {
			t.Fatal(err)
		}
		if ok, saw := w.waitWorks(t.Context(), a.id, version); !ok {
			t.Fatalf("back again: %s", saw)
		}
	}
	p := w.signedIn(t, "olga")
	p.visit("/releases/" + w.releaseOf(t, v3).Digest)
	p.press("Roll out")
	p.asked("Prepare a rollout of " + v3)
	p.fill("Its name", "spring")
	p.fill("How fast", "as soon as it is good")
	p.fill("Reason, for the ledger", "the pressure sensor")
	p.press("Roll out")
	p.closed()
	p.press("spring")
	p.at("/rollouts/spring")
	p.sees("Prepared: nothing is sent before it is started", "Live")
	p.stays()
	p.press("Start")
	p.asked("Start this rollout")
	p.typesWhatIsAsked()
	p.press("Start")
	p.closed()
	p.sees("Running:")
	p.press("Pause")
	p.asked("Let no further wave go")
	p.fill("Reason, for the ledger", "lunch")
	p.press("Pause")
	p.closed()
	p.sees("Paused: no further wave goes")
	p.press("Resume")
	p.asked("Go on")
	p.fill("Reason, for the ledger", "lunch is over")
	p.press("Resume")
	p.closed()
	p.sees("Wave 2 in numbers")
	p.picture("rollout", "light")
	p.sees("Completed: every wave has proven itself")
	p.stayed()
	got, err := w.people["olga"].Rollout(t.Context(), "spring")
	if err != nil || got.Rollout.Phase != rollout.Completed || len(got.Rollout.Waves) != 2 {
		t.Errorf("the API says: %v, %s in %d waves", err, got.Rollout.Phase, len(got.Rollout.Waves))
	}
	for _, kind := range []string{"rollout.created", "rollout.started", "rollout.paused", "rollout.resumed"} {
		w.told(t, "control", kind, "spring", "person:olga")
	}
	if v, err := w.seen(t.Context(), w.well.id); err != nil || v.Device.Version != v3 {
		t.Errorf("a device: %s", tell(v, err))
	}
}

func powerTakesTwo(t *testing.T, w *world) {
	again := func(name string) string {
		link, err := server.Recover(t.Context(), w.layout, "person:"+name)
		if err != nil {
			t.Fatal(err)
		}
		return link[strings.Index(link, "/login"):]
	}
	admin, ada := w.visitor(t), w.byLink(t, "ada", again("ada"))
	ada.addPasskey("red key")
	admin.visit(again("admin"))
	admin.press("Sign in")
	admin.sees("person:admin", "Fleet")
	admin.visit("/members")
	admin.press("person:eve")
	admin.press("Change")
	admin.asked("What person:eve may do")
	admin.press("operator") // its box
	admin.press("Change")
	admin.sees("One person may not do this alone.")
	admin.fill("Reason, for the ledger and for the second person", "olga is on leave")
	admin.press("Propose it")
	admin.at("/proposals/")
	admin.sees("Waits for a second person", "olga is on leave")
	id := look[string](admin, `location.pathname.split("/")[2]`)
	if eve, err := w.people["ada"].Member(t.Context(), "person:eve"); err != nil || slices.Contains(eve.Roles, access.Operator) {
		t.Errorf("proposed, and done: %v, %v", eve.Roles, err)
	}

	w.stale(t, "ada")
	ada.press("Approvals")
	ada.at("/proposals")
	ada.follow("main tbody th a")
	ada.sees("Just this would be done", "olga is on leave")
	ada.picture("proposal", "light")
	ada.press("Approve")
	ada.asked("Approve this proposal")
	ada.fill("Reason, for the ledger", "I called olga")
	ada.press("Approve")
	ada.press("Confirm with your passkey")
	ada.closed()
	ada.sees("Approved by person:ada")

	admin.sees("Approved by person:ada")
	admin.press("Do it")
	admin.press("Do it")
	admin.closed()
	admin.sees("Done: person:ada agreed.")
	if eve, err := w.people["ada"].Member(t.Context(), "person:eve"); err != nil || !slices.Contains(eve.Roles, access.Operator) {
		t.Errorf("approved and carried out, and she has %v, %v", eve.Roles, err)
	}
	w.told(t, "control", "proposal.made", id, "person:admin")
	w.told(t, "control", "proposal.approved", id, "person:ada")
	w.told(t, "control", "proposal.tried", id, "person:admin")
}

func orderCloses(t *testing.T, w *world) {
	p := w.signedIn(t, "frank")
	p.visit("/orders")
	p.press(w.order)
	p.sees("6 pieces of sensor", "In production: the station has not ended the order")
	p.notOffered("Close the order")
	w.rolledBack(t)
	p.press("Over-production")
	p.at("/orders/" + w.order + "/differences")
	p.sees("the station's state was rolled back", "its piece never becomes a device", "record 2, ticket")
	p.press("Clones")
	p.sees("Nothing.")
	if err := w.past("DELETE FROM production_alarm WHERE order_id = $1", w.order); err != nil {
		t.Fatal(err)
	}
	p.visit("/orders/" + w.order)
	p.press("Abandon the order")
	p.asked("Abandon this order")
	p.typesWhatIsAsked()
	p.fill("Reason, for the ledger", "the centre burnt down")
	p.press("Abandon the order")
	p.sees("One person may not do this alone.")
	p.fill("Reason, for the ledger and for the second person", "the centre burnt down")
	p.press("Propose it")
	p.at("/proposals/")
	p.sees("Waits for a second person", "the centre burnt down")
	p.press("Withdraw")
	p.asked("Withdraw this proposal")
	p.fill("Reason, for the ledger", "it was the house beside it")
	p.press("Withdraw")
	p.closed()
	if o, err := w.people["frank"].Order(t.Context(), w.order); err != nil || o.State != factory.Open {
		t.Errorf("proposed, and abandoned: %s, %v", o.State, err)
	}
	w.stationEnds(t)
	p.visit("/orders/" + w.order)
	p.sees("Complete: it can be closed")
	rec, err := w.people["frank"].Reconcile(t.Context(), w.order)
	if err != nil {
		t.Fatal(err)
	}
	made := look[[]string](p, `[...document.querySelectorAll("section[aria-labelledby=reconciliation] tbody tr")].map((e) => clean(e.innerText))`)
	if !slices.ContainsFunc(made, func(row string) bool { return strings.HasPrefix(row, "devices 6") }) || rec.Made != 6 {
		t.Errorf("made %d, and the page says %q", rec.Made, made)
	}
	p.press("Close the order")
	p.asked("Close this order")
	p.typesWhatIsAsked()
	p.press("Close the order")
	p.closed()
	p.sees("Closed: every ticket is accounted for")
	if o, err := w.people["frank"].Order(t.Context(), w.order); err != nil || o.State != factory.Closed {
		t.Errorf("the API says: %s, %v", o.State, err)
	}
	w.told(t, "control", "order.closed", w.order, "person:frank")
}

// rolledBack is what a station leaves that made a piece again: a second record in the place of one. It is asked for twice.
func (w *world) rolledBack(t *testing.T) {
	t.Helper()
	if err := w.past(`INSERT INTO production_alarm (order_id, seq, hash, reason, envelope) SELECT order_id, seq, $2, $3, envelope FROM production_record WHERE order_id = $1 AND seq = 2
		ON CONFLICT DO NOTHING`, w.order, make([]byte, 32), "record 2 exists with other contents: the station's state was rolled back"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.past("DELETE FROM production_alarm WHERE order_id = $1", w.order); err != nil {
			t.Error(err)
		}
	})
}

// stationEnds has the station end the order, and its last records imported.
func (w *world) stationEnds(t *testing.T) {
	t.Helper()
	file := filepath.Join(w.dir, "last.hmr")
	for _, args := range [][]string{{"close", w.order}, {"export", w.order, "-o", file}} {
		if _, err := w.atStation(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	w.hallmark(t, "frank", "order", "import", w.order, file)
}

func dataGrant(t *testing.T, w *world) {
	key, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	req := telemetry.ReadRequest{Device: w.well.id, Stream: "readings", Purpose: "service", KEM: key.KEM().ID(), Key: key.PublicKey().Bytes()}
	p := w.signedIn(t, "sam")
	p.press("Data")
	p.at("/streams")
	p.press("Let somebody read")
	p.asked("Let somebody read a stream")
	p.fill("Who", "person:rene")
	p.fill("Stream", "readings")
	p.fill("For what purpose", "service")
	p.fill("Until", time.Now().AddDate(0, 0, 2).Format(time.DateOnly))
	p.press("Let somebody read")
	p.closed()
	p.until("the grant", `seen("section[aria-labelledby=grants] tbody")?.innerText.includes("person:rene")`)
	if ok, saw := wait(t.Context(), patience, func() (bool, string) {
		_, err := w.people["rene"].ReadStream(t.Context(), req)
		return err == nil, observed(err, "read")
	}); !ok {
		t.Fatalf("granted: %s", saw)
	}
	if _, err := w.people["mallory"].ReadStream(t.Context(), req); client.Code(err) != "stream.no-grant" {
		t.Errorf("not granted: %v", err)
	}
	p.until("both decisions", `(() => { const s = seen("section[aria-labelledby=reads] tbody")?.innerText || ""; return s.includes("rene") && s.includes("mallory"); })()`)
	p.press("End")
	p.asked("End this grant")
	p.fill("Reason, for the ledger", "the service is over")
	p.press("End")
	p.closed()
	p.until("the grant to be over", `!seen("section[aria-labelledby=grants] button.bad")`)
	if _, err := w.people["rene"].ReadStream(t.Context(), req); client.Code(err) != "stream.no-grant" {
		t.Errorf("ended: %v", err)
	}
}

func memberEnds(t *testing.T, w *world) {
	mallory := w.signedIn(t, "mallory")
	if _, err := w.people["mallory"].ControlRollout(t.Context(), "spring", "abort", "mischief"); client.Code(err) != "access.denied" {
		t.Errorf("a viewer: %v", err)
	}
	ada := w.signedIn(t, "ada")
	ada.visit("/members/person:mallory")
	ada.press("End")
	ada.asked("End person:mallory")
	ada.typesWhatIsAsked()
	ada.press("End")
	ada.closed()
	ada.sees("Ended: may do nothing any more")
	mallory.visit("/devices") // a page that follows what happens has noticed by itself, and shows no link any more
	mallory.at("/login")
	mallory.sees("Sign in")
	w.told(t, "control", "access.changed", "person:mallory", "person:ada")

	nora := w.signedIn(t, "nora")
	nora.press("Denials")
	nora.at("/audit")
	nora.fill("Caller", "person:mallory")
	nora.press("Show")
	nora.until("the denial", `[...document.querySelectorAll("main tbody tr")].some((r) => r.innerText.includes("rollout:control"))`)
}

// anybodyAsks is what a buyer learns, on a telephone and without an account, of devices that are each something else: of a real copy too.
func anybodyAsks(t *testing.T, w *world) {
	if err := w.past("UPDATE device SET is_virtual = 0 WHERE id = $1", w.well.id); err != nil { // as if it were a piece that can be bought
		t.Fatal(err)
	}
	p := w.visitor(t)
	p.do("hold a telephone", chromedp.EmulateViewport(390, 844))
	p.visit("/genuine")
	p.fill("Device ID", strings.ToUpper(w.well.id))
	p.press("Look it up")
	p.at("/g/" + w.well.id)
	p.sees("Genuine", "has its production record", "Made in "+time.Now().UTC().Format("January 2006"), "Is this piece the one?")
	p.until("its name in the tab", `document.title.startsWith("Genuine: device `+w.well.id[:12]+`")`)
	p.narrow("/g")
	p.picture("verdict-genuine", "light")
	p.press("Ask the device")
	p.sees("The device with this ID has answered.", "It runs software that its maker approved.")
	p.narrow("/g?question")
	p.picture("verdict-answered", "light")

	olga := w.signedIn(t, "olga")
	olga.visit("/devices/" + w.well.id)
	olga.press("Stolen")
	olga.asked("Mark this device as stolen")
	olga.fill("Type", w.well.id[:12])
	olga.fill("Reason, for the ledger", "taken from the van")
	olga.press("Stolen")
	olga.closed()
	olga.until("the mark", `seen("section[aria-labelledby=ownership]").innerText.includes("stolen")`)
	p.until("the news", `text().includes("Reported stolen") || (fetch(location.pathname).then((r) => r.text()).then((t) => t.includes("Reported stolen") && location.assign(location.pathname)), false)`)
	p.sees("Reported stolen", "Do not buy it.", "Since "+time.Now().UTC().Format("2 January 2006"))
	p.narrow("/g")
	p.picture("verdict-stolen", "light")
	w.told(t, "events", "device.state.changed", w.well.id, "person:olga")

	copied := w.twinned(t, w.agents[3])
	p.visit("/g/" + copied)
	p.sees("Perhaps a copy", "Do not buy it", "Software stands for this device")
	p.narrow("/g")
	p.picture("verdict-copy", "light")

	p.fill("Device ID", "0123456789abcdef0123456789abcdef")
	p.press("Look it up")
	p.sees("Unknown", "cannot say that it made a device")
	p.notOffered("Ask the device")
	p.narrow("/g")
	p.do("sit at a screen", chromedp.EmulateViewport(1280, 900))
	p.visit("/g/" + copied)
	p.wide("/g")
}
