package console_test

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// identities are vouchers, other makers' CAs and our own.
type (
	vouchers    stages
	makers      stages
	others      stages
	authorities stages
)

func (s vouchers) List(ctx context.Context, c access.Caller, place, _ string, _ bool, after string, limit int) ([]rekey.Voucher, error) {
	_, err := s.guard.Within(ctx, c, access.DeviceRead, "device", place, "")
	var out []rekey.Voucher
	for i := range limit {
		if id := fmt.Sprintf("v%04d", limit-i); after == "" || id < after {
			out = append(out, rekey.Voucher{ID: id, Device: known, Product: script, State: rekey.Used, By: script, Second: script, Issued: then, Expires: then})
		}
	}
	return out, err
}

func (s vouchers) Lineage(ctx context.Context, c access.Caller, _ string) ([]rekey.Former, error) {
	return []rekey.Former{{Identity: script, Attest: script, Voucher: script, Until: then}}, stages(s).check(ctx, c, access.DeviceRead, "")
}

func (s vouchers) Get(ctx context.Context, c access.Caller, id string) (rekey.Voucher, error) {
	if id == "none" {
		return rekey.Voucher{}, fault.New(fault.NotFound, "voucher.unknown", "there is no such voucher", "")
	}
	return rekey.Voucher{ID: id, Device: known, Product: "pump", Group: "eu/berlin", State: rekey.Open, By: script, Second: script, Issued: then, Expires: then},
		s.guard.Check(ctx, c, access.DeviceRead, access.Resource{Type: "device", ID: known, Product: "pump", Group: "eu/berlin"})
}

func (s others) List(ctx context.Context, c access.Caller, p string, _ legacy.State, _ string, _ int) ([]legacy.Client, error) {
	return []legacy.Client{
		{Kind: legacy.DDI, Product: "pump", Name: "door-1", State: legacy.Admitted, Device: known, Token: true, Asked: then},
		{Kind: legacy.DDI, Product: "pump", Name: script, State: legacy.Pending, Asked: then, Details: legacy.Details{Attributes: map[string]string{legacy.VersionAttribute: script}}},
	}, stages(s).check(ctx, c, access.DeviceRead, p)
}

func (s makers) CAs(ctx context.Context, c access.Caller, p string) ([]foreign.CA, error) {
	var out []foreign.CA
	for i := range 60 {
		out = append(out, foreign.CA{ID: fmt.Sprintf("fc%02d", i), Product: "pump", Subject: script, Map: script, By: script, Any: i == 0, At: then, NotAfter: then})
	}
	return out, stages(s).check(ctx, c, access.CertRead, p)
}

func (s authorities) Authorities(ctx context.Context, c access.Caller) ([]pki.Standing, []pki.CARequested, error) {
	return []pki.Standing{
			{CA: pki.CA{SKI: "aa", Role: profile.Operational}, Held: true, Issuing: true},
			{CA: pki.CA{SKI: "bb", Role: profile.Product}, Revoked: true},
			{CA: pki.CA{SKI: "cc", Role: profile.Order}},
		}, []pki.CARequested{{Key: script, Role: profile.Infra, Product: script, Unit: script, At: then}},
		stages(s).check(ctx, c, access.CertRead, "")
}

func (s authorities) ListsOf(ctx context.Context, c access.Caller, ski string) (pki.ListsStanding, error) {
	return map[string]pki.ListsStanding{"aa": {Lists: 256, Next: then}, "bb": {Lists: 1, Stale: 1}}[ski], stages(s).check(ctx, c, access.CertRead, "")
}

func (s devices) BundleStatus(ctx context.Context, c access.Caller, p string) (device.BundleStatus, error) {
	return device.BundleStatus{Product: p, Current: 3, Behind: 1, Counts: []device.BundleCount{{Version: 2, Devices: 1}, {Version: 3, Devices: 4}}},
		stages(s).check(ctx, c, access.DeviceRead, p)
}

func TestAVoucherIsOfferedToWhoMayVouch(t *testing.T) {
	s := server(t)
	for who, want := range map[string]bool{"operator": true, "berlin": true, "rome": false, "viewer": false} {
		if _, page := get(t, s, "/vouchers/v1", who); strings.Contains(page, "/vouchers/v1/revoke") != want {
			t.Errorf("%s is offered to revoke: %v", who, !want)
		}
		if _, page := get(t, s, "/devices/"+known, who); strings.Contains(page, "/devices/"+known+"/vouchers") != want {
			t.Errorf("%s is offered to vouch: %v", who, !want)
		}
	}
	if _, page := get(t, s, "/devices/"+known, "operator"); !strings.Contains(page, "data-reveal=\"[{&#34;at&#34;:&#34;secret&#34;") {
		t.Error("who vouches would not see the voucher")
	}
	if resp, _ := get(t, s, "/vouchers/none", "viewer"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a voucher that is not there: %d", resp.StatusCode)
	}
}

// A list longer than a page goes on where it ended, and no row is on two pages.
func TestALongListIsPaged(t *testing.T) {
	s := server(t)
	for path, row := range map[string]string{"/vouchers": `href="/vouchers/(v[0-9]+)"`, "/makers": `<span class="sub mono">(fc[0-9]+)`} {
		seen, next := map[string]bool{}, path
		for range 5 {
			_, page := get(t, s, next, "viewer")
			rows := regexp.MustCompile(row).FindAllStringSubmatch(page, -1)
			if len(rows) == 0 || len(rows) > 50 {
				t.Fatalf("%s has %d rows", next, len(rows))
			}
			for _, r := range rows {
				if seen[r[1]] {
					t.Fatalf("%s shows %s again", next, r[1])
				}
				seen[r[1]] = true
			}
			more := regexp.MustCompile(`rel="next" href="([^"]+)"`).FindStringSubmatch(page)
			if more == nil {
				break
			}
			next = html.UnescapeString(more[1])
		}
		if want := map[string]int{"/vouchers": 51, "/makers": 60}[path]; len(seen) != want {
			t.Errorf("%s: %d rows of all pages, want %d", path, len(seen), want)
		}
	}
}

func TestAListOfRevocationsThatRanOutIsSeen(t *testing.T) {
	s := server(t)
	_, page := get(t, s, "/authorities", "viewer")
	for _, want := range []string{"all 256 fresh", "1 of 1 list missing or run out", "Asked for, and not answered"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page, "order") && strings.Contains(page, `title="cc"`) {
		t.Error("the CAs of orders are among those of the instance")
	}
}

func TestWhoStaysBehindABundleIsOneClickAway(t *testing.T) {
	s := server(t)
	_, page := get(t, s, "/bundles/pump", "viewer")
	if !strings.Contains(page, "1 of 5 devices has an older bundle") || !strings.Contains(page, `href="/devices?bundle=2&amp;product=pump"`) || !strings.Contains(page, "more than 14 days") {
		t.Errorf("the page does not lead to them")
	}
	for who, want := range map[string]bool{"security": true, "operator": false} {
		if _, page := get(t, s, "/bundles/pump", who); strings.Contains(page, "/products/pump/bundle/due") != want {
			t.Errorf("%s is offered to change how long one may stay behind: %v", who, !want)
		}
	}
	if resp, _ := get(t, s, "/bundles/pump", "valves"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("the bundle of another product: %d", resp.StatusCode)
	}
}
