package console_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/supply/parts"
)

// lots is a catalogue in which all that people write is markup. What is called ended, recalled or soft is so.
type lots stages

func (s lots) read(ctx context.Context, c access.Caller) error {
	return stages(s).check(ctx, c, access.OrderRead, "")
}

func (s lots) Supplier(ctx context.Context, c access.Caller, id string) (parts.Supplier, error) {
	v := parts.Supplier{ID: id, Name: script, Names: []string{script, script}, Site: script, By: script, At: then}
	if id == "ended" {
		v.Ended = then
	}
	return v, s.read(ctx, c)
}

func (s lots) Part(ctx context.Context, c access.Caller, id string) (parts.Part, error) {
	p := parts.Part{ID: id, Supplier: script, Kind: parts.Hardware, Name: script, Number: script, By: script, At: then}
	if id == "soft" {
		p.Kind, p.PURL = parts.Software, script
	}
	return p, s.read(ctx, c)
}

func (s lots) Lot(ctx context.Context, c access.Caller, id string) (parts.Lot, error) {
	l := parts.Lot{ID: id, Part: script, Number: script, Received: then, By: script, At: then}
	if id == "recalled" {
		l.Recalled, l.Reason, l.Certificate, l.Size = then, script, digest, 1234
	}
	return l, s.read(ctx, c)
}

// many gives 120 of a list, by names that rise.
func many[T any](prefix, after string, limit int, make func(id string) T) (out []T) {
	for n := range 120 {
		if id := fmt.Sprintf("%s-%03d", prefix, n); id > after && len(out) < limit {
			out = append(out, make(id))
		}
	}
	return out
}

func (s lots) Suppliers(ctx context.Context, c access.Caller, after string, limit int) ([]parts.Supplier, error) {
	return many("s", after, limit, func(id string) parts.Supplier {
		return parts.Supplier{ID: id, Name: script, Names: []string{script}, By: script}
	}), s.read(ctx, c)
}

func (s lots) Parts(ctx context.Context, c access.Caller, of, after string, limit int) ([]parts.Part, error) {
	if of == "ended" {
		return nil, s.read(ctx, c)
	}
	return many("p", after, limit, func(id string) parts.Part { return parts.Part{ID: id, Supplier: script, Name: script, Number: script} }), s.read(ctx, c)
}

func (s lots) Lots(ctx context.Context, c access.Caller, _, after string, limit int) ([]parts.Lot, error) {
	return many("l", after, limit, func(id string) parts.Lot {
		return parts.Lot{ID: id, Part: script, Number: script, Recalled: then, Reason: script}
	}), s.read(ctx, c)
}

func (s lots) Devices(ctx context.Context, c access.Caller, _, after string, limit int) ([]parts.Built, error) {
	return many(script+"/d", after, limit, func(id string) parts.Built {
		return parts.Built{Device: strings.TrimPrefix(id, script+"/"), Product: script, Order: script, State: script}
	}), s.read(ctx, c)
}

func (s lots) Count(ctx context.Context, c access.Caller, _ string) (int64, error) {
	return 1_000_000, s.read(ctx, c)
}

func (s lots) OfOrder(ctx context.Context, c access.Caller, _ string) ([]parts.Lot, error) {
	return []parts.Lot{{ID: "l-1", Part: script, Number: script, Recalled: then}}, stages(s).check(ctx, c, access.OrderRead, "pump")
}

func (s lots) OfDevice(ctx context.Context, c access.Caller, _ string) ([]parts.Lot, error) {
	return []parts.Lot{{ID: script}, {ID: "bad", Recalled: time.Now()}}, stages(s).check(ctx, c, access.DeviceRead, "pump")
}

func TestSuppliersPartsAndLots(t *testing.T) {
	s := server(t)
	for path, wants := range map[string][]string{
		"/suppliers":         {`href="/suppliers/s-000"`, `href="/suppliers?after=s-049"`, `href="/lots"`},
		"/suppliers/ended":   {"Nothing is taken of it", "None is written down."},
		"/suppliers/s-1":     {`href="/parts/p-000"`, `href="/suppliers/s-1?after=p-049"`},
		"/parts?after=p-100": {`href="/parts/p-119"`},
		"/parts/soft":        {"Software comes in no lots", `href="/components?what=`},
		"/lots":              {"recalled", `href="/lots?after=l-049"`},
		"/lots/l-1":          {"none is here", "1\u202f000\u202f000", "hallmark supply lot devices l-1 --all"},
		"/lots/recalled":     {"Recalled: it is known to be bad", `href="/api/v1/lots/recalled/certificate" download`, "1234 B"},
		"/orders/o":          {"Lots that it is made of", `href="/lots/l-1"`},
		"/devices/" + known:  {"May have parts of", `href="/lots/bad"`},
	} {
		_, page := get(t, s, path, "viewer")
		for _, want := range wants {
			if !strings.Contains(page, want) {
				t.Errorf("%s does not say %q", path, want)
			}
		}
	}
	if _, page := get(t, s, "/parts?after=p-100", "viewer"); strings.Contains(page, `rel="next"`) {
		t.Error("the last page of parts has another behind it")
	}
}

// What is said of parts is offered to who may say it, and when it can be said.
func TestPartsAreOfferedToWhoMay(t *testing.T) {
	s := server(t)
	may := []string{"factory", "security"}
	for what, c := range map[string]struct {
		page, action string
		may          []string
	}{
		"a supplier":                 {"/suppliers", `data-path="/api/v1/suppliers/{id}"`, may},
		"an end":                     {"/suppliers/s-1", "/api/v1/suppliers/s-1/end", may},
		"an end of what has ended":   {"/suppliers/ended", "/api/v1/suppliers/ended/end", nil},
		"a part":                     {"/suppliers/s-1", `data-path="/api/v1/parts/{id}"`, may},
		"a part of one that ended":   {"/suppliers/ended", `data-path="/api/v1/parts/{id}"`, nil},
		"a lot":                      {"/parts/p-1", `data-path="/api/v1/lots"`, may},
		"a lot of software":          {"/parts/soft", `data-path="/api/v1/lots"`, nil},
		"a recall":                   {"/lots/l-1", "/api/v1/lots/l-1/recall", may},
		"a recall of what is":        {"/lots/recalled", "/api/v1/lots/recalled/recall", nil},
		"an all-clear":               {"/lots/recalled", "/api/v1/lots/recalled/clear", may},
		"an all-clear without cause": {"/lots/l-1", "/api/v1/lots/l-1/clear", nil},
		"naming an order's":          {"/orders/o", `/lots" data-body`, may},
		"taking one from it":         {"/orders/o", "/lots/taken", may},
	} {
		for _, who := range []string{"viewer", "operator", "factory", "security", "admin"} {
			resp, page := get(t, s, c.page, who)
			if got, want := strings.Contains(page, c.action), slices.Contains(c.may, who); resp.StatusCode != http.StatusOK || got != want {
				t.Errorf("%s: status %d, offered to %s: %v, want %v", what, resp.StatusCode, who, got, want)
			}
		}
	}
}
