package console

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// entryView is a fact as its page shows it.
type entryView struct {
	wire.Fact
	At    time.Time
	UID   string
	Cause *ledger.Ref
	Text  string // in short
	Form  string // what its data is
	Data  string

	Private string // what was said beside the log
}

// verifyData is what the browser checks a proof against.
type verifyData struct {
	Origin    string
	Key       string // base64
	Witnesses string // JSON: name → key, base64
	Quorum    int
}

func logNames() []string { return []string{string(ledger.Control), string(ledger.Events)} }

func (h *handler) ledger(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx, v := r.Context(), r.URL.Query()
	p := ledgerPageData{Quorum: h.cfg.Trust.Quorum, Query: fleet.FactQuery{
		Log: v.Get("log"), Subject: v.Get("subject"), Kind: v.Get("kind"), Limit: pageSize,
	}}
	if p.Query.Log != string(ledger.Control) {
		p.Query.Log = string(ledger.Events)
	}
	if before, err := strconv.ParseUint(v.Get("before"), 10, 63); err == nil {
		p.Query.Before = before
	}
	var err error
	if p.Facts, p.More, err = h.cfg.Fleet.Facts(ctx, caller, p.Query); err != nil {
		return err
	}
	for _, log := range logNames() {
		part, err := h.logPart(ctx, ledger.Log(log))
		if err != nil {
			return err
		}
		p.Logs = append(p.Logs, part)
	}
	h.render(w, r, http.StatusOK, ledgerPage(h.view(r, caller, "Ledger", "*"), p))
	return nil
}

// logPart is what is published of a log; it is public.
func (h *handler) logPart(ctx context.Context, log ledger.Log) (logPart, error) {
	part := logPart{Log: log}
	pub, err := h.cfg.Stages.Ledger.Latest(ctx, log)
	if errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ledger.ErrNotYetWitnessed) {
		return part, nil
	}
	if err != nil {
		return part, err
	}
	part.Published = &pub
	_, cosigs, err := ledger.SplitNote(pub.Note)
	if err != nil {
		return part, err
	}
	for _, c := range cosigs {
		part.Witnesses = append(part.Witnesses, witnessed{Name: c.Witness, At: time.Unix(int64(min(c.Time, 1<<40)), 0)})
	}
	return part, nil
}

func (h *handler) entry(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	log := ledger.Log(r.PathValue("log"))
	index, err := strconv.ParseUint(r.PathValue("index"), 10, 63)
	if err != nil || log != ledger.Control && log != ledger.Events {
		return fault.New(fault.NotFound, "ledger.no-entry", "an entry is named by its log, control or events, and its index", "follow a link of the log's page")
	}
	if !h.cfg.Allowed(r.Context(), caller, access.LedgerRead, access.Resource{Type: "ledger", ID: string(log)}) {
		return fault.New(fault.Denied, "access.denied", caller.ID+" may not read the ledger", "ask an administrator for a role that includes it")
	}
	ref := ledger.Ref{Log: log, Index: index}
	data, err := h.cfg.Stages.Ledger.Entry(r.Context(), ref)
	if errors.Is(err, ledger.ErrNotFound) {
		return fault.New(fault.NotFound, "ledger.no-entry", "the log has no such entry yet", "look again when it has grown")
	}
	if err != nil {
		return err
	}
	f, err := wire.DecodeFact(data)
	if err != nil {
		return err
	}
	private, err := h.cfg.Stages.Ledger.Private(r.Context(), f)
	if err != nil {
		return err
	}
	e := viewEntry(f, private)
	v := h.view(r, caller, "Ledger", "")
	v.Verify = true
	h.render(w, r, http.StatusOK, entryPage(v, entryPageData{Ref: ref, Entry: e, Trust: h.verifyData(log)}))
	return nil
}

func (h *handler) verifyData(log ledger.Log) verifyData {
	t := h.cfg.Trust.Logs[log]
	return verifyData{
		Origin: t.Origin, Key: base64.StdEncoding.EncodeToString(t.Key), Witnesses: body(h.cfg.Trust.Witnesses), Quorum: h.cfg.Trust.Quorum,
	}
}

// maxData bounds what is shown of an entry's data, characters.
const maxData = 16 << 10

func viewEntry(f wire.Fact, private []byte) entryView {
	e := entryView{Fact: f, At: time.UnixMilli(f.At), UID: hex.EncodeToString(f.UID), Text: fleet.Describe(f, private)}
	if f.Cause != nil {
		e.Cause = &ledger.Ref{Log: ledger.Log(f.Cause.Log), Index: f.Cause.Index}
	}
	e.Form, e.Data = fleet.Show(f.Data)
	var out bytes.Buffer
	if json.Indent(&out, []byte(e.Data), "", "  ") == nil {
		e.Data = out.String()
	}
	e.Data = clip(e.Data, maxData)
	if len(private) > 0 {
		out.Reset()
		if json.Indent(&out, private, "", "  ") == nil {
			e.Private = out.String()
		}
	} else if len(f.Private) > 0 {
		e.Private = fleet.Absent
	}
	return e
}
