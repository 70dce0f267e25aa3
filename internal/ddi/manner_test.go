package ddi_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/ddi"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/wire"
)

// one is the one client that calls, and what it is offered.
type one struct {
	ddi.Clients
	ddi.Offers
	client legacy.Client
	offer  device.Offer
}

func (o *one) Identify(context.Context, legacy.Kind, string, string, legacy.Proof) (legacy.Client, error) {
	return o.client, nil
}

func (o *one) Offer(context.Context, access.Caller, string) (device.Offer, error) {
	return o.offer, nil
}

func (o *one) Repeat(ctx context.Context, _ string, _ [32]byte, answer func(context.Context) ([]byte, time.Time, error)) ([]byte, error) {
	body, _, err := answer(ctx)
	return body, err
}

func (o *one) Offered(context.Context, access.Caller, string, int32) (device.Offer, error) {
	return o.offer, nil
}

// sums has those of any artifact.
type sums struct{}

func (sums) KeepSums(context.Context, [32]byte, legacy.Sums) error { return nil }

func (sums) Sums(context.Context, [32]byte) (legacy.Sums, bool, error) {
	return legacy.Sums{SHA1: make([]byte, 20), MD5: make([]byte, 16)}, true, nil
}

// Windows and manners in hawkBit's words. SWUpdate takes what it is told to skip for done, so that what is shut is linked nowhere, and is not there for who kept the link.
func TestWindowsAndMannersInItsWords(t *testing.T) {
	release := wire.Release{Components: []wire.Component{{Name: "system", Version: "1.1.0", Digest: make([]byte, 32), Size: 1}}}
	agreed := device.ActionNote{Agreed: true}
	for name, c := range map[string]struct {
		offer      device.Offer
		client     legacy.Details
		link       string   // the one that a poll has; empty: none
		deployment []string // is in it; nil: there is none
	}{
		"forced": {device.Offer{}, legacy.Details{}, "deploymentBase", []string{`"download":"forced"`, `"update":"forced"`}},
		"soft":   {device.Offer{Manner: wire.Soft}, legacy.Details{}, "deploymentBase", []string{`"download":"attempt"`, `"update":"attempt"`}},
		"in its hours": {
			device.Offer{Hours: true}, legacy.Details{}, "deploymentBase", []string{`"update":"forced"`, `"maintenanceWindow":"available"`},
		},
		"outside of them": {
			device.Offer{Hours: true, Shut: true}, legacy.Details{}, "", nil,
		},
		"outside of them, softly": {
			device.Offer{Hours: true, Shut: true, Manner: wire.Soft}, legacy.Details{}, "", nil,
		},
		"by consent":                       {device.Offer{Manner: wire.Consent}, legacy.Details{}, "confirmationBase", nil},
		"by consent that was given":        {device.Offer{Manner: wire.Consent, Note: agreed}, legacy.Details{}, "deploymentBase", []string{`"update":"forced"`}},
		"by consent that they gave to all": {device.Offer{Manner: wire.Consent}, legacy.Details{Auto: true}, "deploymentBase", []string{`"update":"forced"`}},
		"by consent, outside of its hours": {device.Offer{Manner: wire.Consent, Hours: true, Shut: true}, legacy.Details{}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := &one{client: legacy.Client{Name: "c", Product: "pump", Details: c.client}, offer: c.offer}
			o.offer.Number, o.offer.Release, o.offer.Act = 7, release, wire.ActInstall
			o.client.AttributesAt = time.Now()
			srv := httptest.NewServer(ddi.Handler(ddi.Config{
				Base: "http://here", Poll: time.Minute, Soon: time.Second, Clients: o, Offers: o, Sums: sums{}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
			}))
			defer srv.Close()
			get := func(path string) (int, string) {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/pump/controller/v1/c"+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Body.Close()
				data, err := io.ReadAll(r.Body)
				if err != nil {
					t.Fatal(err)
				}
				return r.StatusCode, string(data)
			}
			_, poll := get("")
			for _, link := range []string{"deploymentBase", "confirmationBase", "cancelAction"} {
				if strings.Contains(poll, link) != (link == c.link) {
					t.Errorf("%s is linked, or is not: %s", link, poll)
				}
			}
			every := "00:01:00" // nothing, or what a person has to say first
			if c.link == "deploymentBase" {
				every = "00:00:01"
			}
			if !strings.Contains(poll, every) {
				t.Errorf("it comes again other than after %s: %s", every, poll)
			}
			status, got := get("/deploymentBase/7")
			if (status == http.StatusOK) != (c.deployment != nil) {
				t.Errorf("its deployment: %d %s", status, got)
			}
			for _, want := range c.deployment {
				if !strings.Contains(got, want) {
					t.Errorf("%s is not in %s", want, got)
				}
			}
			if !c.offer.Hours && strings.Contains(got, "maintenanceWindow") {
				t.Errorf("it has hours: %s", got)
			}
		})
	}
}
