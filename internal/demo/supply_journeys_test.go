package demo

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/supply"
)

// badLot has a supplier, a part and a lot of it written down, and named by an order; when the lot is bad, the order's devices are on its page.
func badLot(t *testing.T, w *world) {
	p := w.signedIn(t, "frank")
	p.visit("/suppliers")
	p.sees("None is written down.")
	p.press("Write a supplier down")
	p.asked("Write a supplier down")
	p.fill("ID, yours", "acme-memory")
	p.fill("Its name", "Acme Memory")
	p.fill("What bills of materials call it", "ACME Memory GmbH\nAcme, Inc.")
	p.press("Write a supplier down")
	p.closed()
	p.press("acme-memory")
	p.sees("ACME Memory GmbH, Acme, Inc.", "None is written down.")
	p.press("Write a part down")
	p.asked("Write a part of acme-memory down")
	p.fill("ID, yours", "flash")
	p.fill("Kind", "hardware")
	p.fill("What it is", "NOR flash")
	p.press("Write a part down")
	p.closed()
	p.press("flash")
	p.sees("None has come.")
	p.press("A lot has come")
	p.asked("Write a lot of flash down")
	p.fill("ID, yours", "flash-2626")
	p.fill("The supplier's number", "2626/A")
	p.press("A lot has come")
	p.closed()
	p.press("flash-2626")
	p.sees("none is here", "None: no order with devices names it")
	p.visit("/orders/" + w.order)
	p.sees("It names none: no recall of a lot finds its devices.")
	p.press("Name lots")
	p.asked("Of which lots is")
	p.fill("IDs of lots", "flash-2626")
	p.press("Name lots")
	p.closed()
	p.press("flash-2626")
	p.sees("6 devices are in use", w.well.id[:12])
	p.press("Recall")
	p.asked("Say that lot flash-2626 is bad")
	p.typesWhatIsAsked()
	p.fill("Reason, for the ledger", "it forgets in the cold")
	p.press("Recall")
	p.closed()
	p.sees("Recalled: it is known to be bad", "it forgets in the cold")
	if l, err := w.people["frank"].Lot(t.Context(), "flash-2626"); err != nil || l.Recalled.IsZero() || l.Reason != "it forgets in the cold" {
		t.Errorf("the API says: %+v, %v", l, err)
	}
	w.told(t, "events", "lot.recalled", "flash-2626", "person:frank")
	p.visit("/devices/" + w.well.id)
	p.sees("May have parts of", "flash-2626", "recalled")
	p.visit("/findings")
	p.sees("A lot of parts was recalled")
}

// liveFromTheStart has something happen after a page was read and before its stream of events is open: the page shows it all the same, though the
// server is away when it first looks.
func liveFromTheStart(t *testing.T, w *world) {
	p := w.signedIn(t, "frank")
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	held, err := chromedp.Run(ctx, chromedp.WaitEvent(fetch.RequestPaused, nil, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		params := fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: "*/api/v1/events*"}}}
		if _, err := chromedp.Call(ctx, fetch.Enable, params); err != nil {
			return err
		}
		_, err := chromedp.Navigate(p.console+"/suppliers")(ctx, target)
		return err
	})))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.people["frank"].SetSupplier(t.Context(), "zeta-screens", client.SupplierRequest{Name: "Zeta Screens"}); err != nil {
		t.Fatal(err)
	}
	w.told(t, "control", "supplier.changed", "zeta-screens", "person:frank")
	p.notOffered("zeta-screens")
	looks, err := chromedp.Run(ctx, chromedp.WaitEvent(fetch.RequestPaused, nil, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		if _, err := chromedp.Call(ctx, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: held.RequestID}); err != nil {
			return err
		}
		_, err := chromedp.Call(ctx, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: "*/suppliers"}}})
		return err
	})))
	if err != nil {
		t.Fatal(err)
	}
	p.do("be away for a moment", chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		if _, err := chromedp.Call(ctx, fetch.FailRequest, fetch.FailRequestParams{RequestID: looks.RequestID, ErrorReason: network.ErrorReasonConnectionRefused}); err != nil {
			return err
		}
		_, err := chromedp.Call(ctx, fetch.Disable, cdp.Empty{})
		return err
	}))
	p.sees("zeta-screens", "Live")
	p.heard("net::ERR_CONNECTION_REFUSED")
}

// gateRefuses has a gate put before a product's releases; what it refuses is on a page, with what to do; and to ask for less takes two.
func gateRefuses(t *testing.T, w *world) {
	p := w.signedIn(t, "rita")
	p.visit("/supply/" + productID)
	p.sees("The gate is off.", "Nobody's: with a gate, no release passes.")
	p.press("Change")
	p.asked("What is asked of releases of")
	p.fill("A release that does not pass", "is not proposed")
	p.fill("A flaw stops it", "5.5")
	p.press("Change")
	p.closed()
	p.sees("The gate is enforced.", "stop it from CVSS 5.5 on")
	if is, err := w.people["rita"].SupplyPolicy(t.Context(), productID); err != nil || is.Mode != supply.Enforce || is.Severity != 5.5 {
		t.Fatalf("the API says: %+v, %v", is, err)
	}
	app := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(app, []byte("nobody knows who built this"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), w.bin.hallmark, "release", "create", "--product", productID, "--version", "1.9.0", "--counter", "2", "--file", "app="+app+":exec")
	cmd.Env = append(os.Environ(), "HALLMARK_URL="+w.demo.console, "HALLMARK_TOKEN="+w.tokens["rita"])
	if said, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(said), "[supply.gate]") {
		t.Fatalf("not refused: %v: %s", err, said)
	}
	p.visit("/supply")
	p.press(productID + "-1.9.0")
	p.at("/decisions/")
	w.decision = look[string](p, "location.pathname")
	p.sees("Refused: there is no such release.", "provenance.missing", "Give the provenance that the build has signed")
	p.visit("/supply/" + productID)
	p.press("Change")
	p.fill("A release that does not pass", "is not looked at")
	p.press("Change")
	p.sees("One person may not do this alone.")
	p.fill("Reason, for the ledger and for the second person", "the builder is not ready")
	p.press("Propose it")
	p.at("/proposals/")
	where := look[string](p, "location.pathname")

	bob := w.signedIn(t, "bob")
	bob.visit(where)
	bob.sees("the builder is not ready", "Just this would be done")
	bob.press("Approve")
	bob.asked("Approve this proposal")
	bob.fill("Reason, for the ledger", "until Monday")
	bob.press("Approve")
	bob.closed()
	p.sees("Approved by person:bob")
	p.press("Do it")
	p.press("Do it")
	p.sees("Done: person:bob agreed.")
	if is, err := w.people["rita"].SupplyPolicy(t.Context(), productID); err != nil || is.Mode != supply.Off {
		t.Errorf("approved and carried out, and the API says: %+v, %v", is, err)
	}
}
