package demo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/wire"
)

// once is what the dialog shows that is shown nowhere else.
func (p *person) once(label string) string {
	p.t.Helper()
	row := "[...document.querySelectorAll('#confirm-answer p')].find((e) => shown(e) && e.innerText.includes(" + quote(label) + "))"
	p.until("what is shown once: "+label, row)
	return look[string](p, row+".querySelector('output').innerText")
}

func lostItsKeys(t *testing.T, w *world) {
	olga, sam := w.signedIn(t, "olga"), w.signedIn(t, "sam")
	olga.visit("/devices/" + w.silent.id)
	olga.press("It lost its keys")
	olga.asked("Vouch for this device, so that it gets new keys")
	olga.fill("Good for", "an hour")
	olga.fill("Reason, for the ledger", "gone")
	olga.press("It lost its keys")
	olga.sees("One person may not do this alone.")
	olga.fill("Reason, for the ledger and for the second person", "it lies before me")
	olga.press("Propose it")
	olga.at("/proposals/")
	id := look[string](olga, `location.pathname.split("/")[2]`)
	w.proposal = "/proposals/" + id
	if open, err := w.people["sam"].Vouchers(t.Context(), "", "", w.silent.id, true); err != nil || len(open) != 0 {
		t.Errorf("asked for by one, and there: %+v, %v", open, err)
	}

	sam.visit("/proposals/" + id)
	sam.sees("it lies before me", "Just this would be done")
	sam.press("Approve")
	sam.asked("Approve this proposal")
	sam.fill("Reason, for the ledger", "olga called, and held it before the camera")
	sam.press("Approve")
	sam.closed()
	sam.sees("Approved by person:sam")

	olga.sees("Approved by person:sam")
	olga.press("Do it")
	olga.press("Do it")
	secret := olga.once("The voucher, for the technician.")
	if !regexp.MustCompile(`^([0-9A-Z]{4}[- ]){7}[0-9A-Z]{4}$`).MatchString(secret) {
		t.Errorf("the voucher is %q", secret)
	}
	olga.picture("voucher-once", "light")
	olga.narrow("/proposals/" + id)
	olga.do("sit at a screen", chromedp.EmulateViewport(1280, 900))
	olga.press("Close")
	olga.closed()
	olga.sees("Done: person:sam agreed.")
	if look[bool](olga, "document.documentElement.outerHTML.includes("+quote(secret)+")") {
		t.Error("the voucher is still in the page")
	}

	olga.press("Vouchers")
	olga.at("/vouchers")
	olga.follow("main tbody th a")
	olga.at("/vouchers/")
	w.voucher = look[string](olga, "location.pathname")
	olga.sees("open", "person:olga", "person:sam", "Beside the device")
	got, err := w.people["olga"].Voucher(t.Context(), strings.TrimPrefix(w.voucher, "/vouchers/"))
	if err != nil || got.State != rekey.Open || got.Device != w.silent.id {
		t.Errorf("the API says: %+v, %v", got, err)
	}
	w.told(t, "events", "voucher.issued", w.silent.id, "person:olga")
	olga.press("Revoke it")
	olga.asked("End this voucher before it is used")
	olga.fill("Reason, for the ledger", "it was found again")
	olga.press("Revoke it")
	olga.closed()
	olga.sees("revoked", "It was ended before its use")
	olga.notOffered("Revoke it")
}

func soldFromThePage(t *testing.T, w *world) {
	a := w.agents[4]
	made, err := w.people["sam"].ClaimCodes(t.Context(), client.LabelsRequest{Product: productID, Devices: []string{a.id}})
	if err != nil || len(made.Labels) != 1 {
		t.Fatalf("codes: %+v, %v", made, err)
	}
	if _, err := w.people["berta"].Claim(t.Context(), a.id, client.ClaimRequest{Code: made.Labels[0].Code}); err != nil {
		t.Fatal(err)
	}
	berta := w.signedIn(t, "berta")
	berta.visit("/devices/" + a.id)
	berta.press("Hand it on: what would end")
	berta.at("/transfer/")
	berta.sees("number 1, with all sight of it, at once", "Leave it takes none")
	berta.press("Hand it on")
	berta.asked("End its time with its owner")
	berta.fill("To", "another owner")
	berta.typesWhatIsAsked()
	berta.fill("Reason, for the ledger", "sold to Rome")
	berta.press("Hand it on")
	code := berta.once("The code for the next owner.")
	berta.press("Close")

	sam := w.signedIn(t, "sam")
	sam.visit("/transfer/" + a.id)
	sam.sees("Its owner is out", "The device lets go")
	sam.sees("It was handed on last (resale)")
	sam.picture("transfer", "light")
	if o, err := w.people["sam"].Ownership(t.Context(), a.id); err != nil || len(o.Periods) != 1 || o.Periods[0].Until.IsZero() || o.Periods[0].End != owner.Resale {
		t.Errorf("the API says: %+v, %v", o.Periods, err)
	}
	if _, err := w.people["berta"].Device(t.Context(), a.id); err == nil {
		t.Error("its old owner still sees it")
	}
	if _, err := w.people["carla"].Claim(t.Context(), a.id, client.ClaimRequest{Code: code}); err != nil {
		t.Errorf("the next owner's code: %v", err)
	}
}

// handedOnWithAKey hands on a device that defends its owner: the warrant is a file, made where the owner's key is.
func handedOnWithAKey(t *testing.T, w *world) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, berta := w.agents[0], &buyer{d: w.demo, t: t, who: w.people["berta"], name: "berta", key: key}
	code, err := w.code(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if err := berta.claim(a.id, code); err != nil {
		t.Fatal(err)
	}
	o, err := berta.who.Ownership(t.Context(), a.id)
	if err != nil {
		t.Fatal(err)
	}
	berta.id = o.Periods[len(o.Periods)-1].Owner
	berta.held(a)
	digest := o.Periods[len(o.Periods)-1].Digest
	envelope, err := leave(a, digest, berta.key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "leave.cose")
	if err := os.WriteFile(file, envelope, 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.signedIn(t, "berta")
	p.visit("/transfer/" + a.id)
	p.sees("a warrant of the owner's key", "--owner-digest "+fmt.Sprintf("%x", digest), "hallmark approve leave.payload --key owner.key")
	p.press("Hand it on")
	p.asked("End its time with its owner")
	p.fill("To", "the maker")
	p.chooses(file)
	p.typesWhatIsAsked()
	p.fill("Reason, for the ledger", "its lease has ended")
	p.press("Hand it on")
	if ok, saw := wait(t.Context(), time.Minute, func() (bool, string) {
		tr, err := w.people["sam"].Ownership(t.Context(), a.id)
		return err == nil && tr.Transfer != nil && !tr.Transfer.Done.IsZero(), fmt.Sprintf("%+v, %v", tr.Transfer, err)
	}); !ok {
		t.Errorf("it is not let go of: %s", saw)
	}
}

// sentAwayAndKept begins to hand a device that is off to another instance, by two people, and gives it up before the device was told.
func sentAwayAndKept(t *testing.T, w *world) {
	a, dir := w.silent, t.TempDir()
	offer, payload, warrant := filepath.Join(dir, "own.offer"), filepath.Join(dir, "rehome.payload"), filepath.Join(dir, "rehome.cose")
	w.types(t, "bundle", "offer", "--product", productID, "--server", w.devURL, "--out", offer)
	w.types(t, "warrant", "payload", a.id, "--product", productID, "--act", "rehome", "--offer", offer, "--reason", "its own", "--valid", "1h", "--out", payload)
	data, err := os.ReadFile(payload)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := w.threshold(wire.TypeWarrant, data, "alice", "bob")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(warrant, signed, 0o600); err != nil {
		t.Fatal(err)
	}
	sam, olga := w.signedIn(t, "sam"), w.signedIn(t, "olga")
	sam.visit("/transfer/" + a.id)
	sam.press("Hand it to another instance")
	sam.asked("Hand this device to another instance, for good")
	for name, path := range map[string]string{"offer": offer, "warrants": warrant} {
		sam.do("choose "+name, chromedp.SetUploadFiles(chromedp.CSS(`#confirm-fields input[name="field-`+name+`"]`), []string{path}))
	}
	sam.typesWhatIsAsked()
	sam.fill("Reason, for the ledger", "the clinic runs its own")
	sam.press("Hand it to another instance")
	sam.sees("One person may not do this alone.")
	sam.fill("Reason, for the ledger and for the second person", "sold with the ward")
	sam.press("Propose it")
	sam.at("/proposals/")
	olga.visit("/proposals/" + look[string](sam, `location.pathname.split("/")[2]`))
	olga.press("Approve")
	olga.asked("Approve this proposal")
	olga.fill("Reason, for the ledger", "the contract lies here")
	olga.press("Approve")
	olga.closed()
	sam.sees("Approved by person:olga")
	sam.press("Do it")
	sam.press("Do it")
	sam.sees("Done: person:olga agreed.")

	sam.visit("/transfer/" + a.id)
	sam.sees("The device goes")
	sam.press("Let it stay")
	sam.asked("Give up handing this device over")
	sam.fill("Reason, for the ledger", "the clinic has changed its mind")
	sam.press("Let it stay")
	sam.closed()
	sam.sees("It stays")
	w.told(t, "events", "device.transfer.given-up", a.id, "person:sam")
}

// twinned has a device copied, keys and all, and waits until the two are found.
func (w *world) twinned(t *testing.T, a *device) string {
	t.Helper()
	a.run.stop(os.Interrupt)
	twin := &device{d: w.demo, id: a.id, dir: filepath.Join(w.dir, "copy")}
	if err := a.duplicate(twin.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { twin.run.stop(os.Kill) })
	for _, x := range []*device{a, twin} {
		if err := x.on(); err != nil {
			t.Fatal(err)
		}
	}
	w.until(t, a, "two with one identity are found", func(v httpapi.DeviceDetail) bool { return v.Device.State == "suspected-clone" })
	return a.id
}

func otherMakers(t *testing.T, w *world) {
	list := filepath.Join(t.TempDir(), "valves.csv")
	if err := os.WriteFile(list, []byte("name,sha256\nvalve-1,"+strings.Repeat("ab", 32)+"\nvalve-2,nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sam := w.signedIn(t, "sam")
	sam.press("Other makers")
	sam.at("/makers")
	count := func() int {
		t.Helper()
		page, err := w.people["sam"].Facts(t.Context(), fleet.FactQuery{Log: "events", Kind: "device.imported", Limit: 5})
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Items)
	}
	imported := func(how, taken, known string) {
		t.Helper()
		sam.press("Import devices of " + productID)
		sam.asked("Take devices of another maker from a list")
		sam.do("choose the list", chromedp.SetUploadFiles(chromedp.CSS(`#confirm-fields input[type="file"]`), []string{list}))
		sam.fill("Now", how)
		sam.press("Import devices of " + productID)
		if got := sam.once("Devices that were taken, or would be"); got != taken {
			t.Errorf("%s: taken %s, want %s", how, got, taken)
		}
		if got := sam.once("Known before"); got != known {
			t.Errorf("%s: known %s, want %s", how, got, known)
		}
		if got := sam.once("Not taken"); !strings.Contains(got, "nonsense") {
			t.Errorf("%s: the line that is not taken is told as %q", how, got)
		}
		sam.press("Close")
		sam.closed()
	}
	imported("try it", "1", "0")
	if n := count(); n != 0 {
		t.Errorf("tried, and %d devices are on record", n)
	}
	imported("take them", "1", "0")
	imported("take them", "0", "1")
	if ok, saw := wait(t.Context(), patience, func() (bool, string) { n := count(); return n == 1, fmt.Sprint(n) }); !ok {
		t.Errorf("%s devices are on record", saw)
	}
}

// authorityAsked asks a key ceremony for an authority in the browser, and comes home with a file that no ceremony made.
func authorityAsked(t *testing.T, w *world) {
	ada := w.signedIn(t, "ada")
	ada.visit("/authorities")
	ada.press("Ask for an authority")
	ada.asked("Ask the next key ceremony for an authority")
	ada.fill("What tells it from others of its kind, such as a year", "2099")
	ada.fill("Why, for the people at the ceremony", "the present one ends")
	ada.press("Ask for an authority")
	ada.until("the file for the ceremony", `(() => { const a = document.querySelector("#confirm-answer a"); return a && shown(a) && a.download === "ca-request.cose" && a.href.startsWith("blob:"); })()`)
	ada.press("Close")
	ada.closed()
	ada.visit("/authorities")
	ada.sees("Asked for, and not answered", "2099")
	file := filepath.Join(t.TempDir(), "grant")
	if err := os.WriteFile(file, []byte("no grant"), 0o600); err != nil {
		t.Fatal(err)
	}
	ada.press("Install an authority")
	ada.asked("Take in what a ceremony granted")
	ada.do("choose the file", chromedp.SetUploadFiles(chromedp.CSS(`#confirm-fields input[type="file"]`), []string{file}))
	ada.press("Install an authority")
	ada.until("why not", `[...document.querySelectorAll("dialog[open] *")].some((e) => e.innerText.includes("grant"))`)
	ada.press("Cancel")
	ada.visit("/desks")
	ada.sees("None.", "hallmark desk init")
}
