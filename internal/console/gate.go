package console

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/wire"
)

// gateKinds are the facts that change what the pages of the supply gate show.
const gateKinds = "supply. release. vex."

// gateRow is a product with what its gate asks.
type gateRow struct {
	Product product.Product
	Policy  supply.Policy
}

// judged is a decision of a gate that is not good.
type judged struct {
	Index    uint64 // of its fact, in the control log
	At       time.Time
	Release  string // its ID
	By       string
	WentOn   bool // its product's gate only warned, and the release was proposed
	Decision wire.GateDecision
}

type gatesPageData struct {
	Rows    []gateRow
	More    string
	Refused []judged
	Placing bool // there are decisions that the ledger has in a moment
	Earlier string
	Allowed bool // to read the ledger, where the decisions are
}

// gates shows what each product's gate asks, and what did not pass.
func (h *handler) gates(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx := r.Context()
	products, err := h.cfg.Stages.Products.List(ctx, caller)
	if err != nil {
		return err
	}
	var p gatesPageData
	products, p.More = cutAfter(products, "/supply?after=", r.URL.Query().Get("after"), func(p product.Product) string { return p.ID })
	for _, x := range products {
		policy, err := h.cfg.Stages.Supply.Policy(ctx, caller, x.ID)
		if err != nil {
			return err
		}
		p.Rows = append(p.Rows, gateRow{x, policy})
	}
	before, _ := strconv.ParseUint(r.URL.Query().Get("before"), 10, 63) // what is no number is the newest
	if err = unlessDenied(h.judged(ctx, caller, before, &p)); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, gatesPage(h.view(r, caller, "Supply gate", gateKinds), p))
	return nil
}

// judged lists the decisions that were not good, newest first, of a page of all decisions before an index.
func (h *handler) judged(ctx context.Context, caller access.Caller, before uint64, p *gatesPageData) error {
	lines, more, err := h.cfg.Fleet.Facts(ctx, caller, fleet.FactQuery{Log: string(ledger.Control), Kind: string(ledger.KindSupplyDecided), Before: before, Waiting: true, Limit: pageSize})
	if err != nil {
		return err
	}
	p.Allowed = true
	proposed, err := h.proposedWith(ctx, caller)
	if err != nil {
		return err
	}
	for _, l := range lines {
		if l.Index == nil {
			p.Placing = true
			continue
		}
		j, err := h.judgement(ctx, *l.Index, proposed)
		if err != nil {
			return err
		}
		if !j.Decision.OK {
			p.Refused = append(p.Refused, j)
		}
		if more {
			p.Earlier = "/supply?before=" + strconv.FormatUint(*l.Index, 10)
		}
	}
	return nil
}

// proposedWith gives the digests of the decisions that releases have.
func (h *handler) proposedWith(ctx context.Context, caller access.Caller) (map[[32]byte]bool, error) {
	releases, err := perProduct(ctx, caller, h.cfg.Stages.Releases.List)
	out := map[[32]byte]bool{}
	for _, r := range releases {
		if len(r.Decision) > 0 {
			out[sha256.Sum256(r.Decision)] = true
		}
	}
	return out, err
}

// judgement reads a decision from the ledger.
func (h *handler) judgement(ctx context.Context, index uint64, proposed map[[32]byte]bool) (judged, error) {
	data, err := h.cfg.Stages.Ledger.Entry(ctx, ledger.Ref{Log: ledger.Control, Index: index})
	if errors.Is(err, ledger.ErrNotFound) {
		return judged{}, noDecision(index)
	}
	if err != nil {
		return judged{}, err
	}
	f, err := wire.DecodeFact(data)
	if err != nil {
		return judged{}, err
	}
	if f.Kind != string(ledger.KindSupplyDecided) {
		return judged{}, noDecision(index)
	}
	d, err := wire.DecodeGateDecision(f.Data)
	return judged{Index: index, At: time.UnixMilli(f.At), Release: f.Subject, By: f.Actor, Decision: d, WentOn: proposed[sha256.Sum256(f.Data)]}, err
}

func noDecision(index uint64) error {
	return fault.New(fault.NotFound, "supply.no-decision", fmt.Sprintf("entry %d of the control log is no decision of a supply gate", index), "choose it from the page Supply gate")
}

// decided shows one decision: which step, why, and what to do.
func (h *handler) decided(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	index, err := strconv.ParseUint(r.PathValue("index"), 10, 63)
	if err != nil {
		return fault.New(fault.NotFound, "supply.no-decision", "a decision is named by its place in the control log", "choose it from the page Supply gate")
	}
	if !h.cfg.Allowed(r.Context(), caller, access.LedgerRead, access.Resource{Type: "ledger", ID: string(ledger.Control)}) {
		return fault.New(fault.Denied, "access.denied", caller.ID+" may not read the ledger", "ask an administrator for a role that includes it")
	}
	proposed, err := h.proposedWith(r.Context(), caller)
	if err != nil {
		return err
	}
	j, err := h.judgement(r.Context(), index, proposed)
	if err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, decidedPage(h.view(r, caller, "Supply gate", ""), j))
	return nil
}

type gatePageData struct {
	Product   string
	Policy    supply.Policy
	Suppliers map[string]string // names by ID, as far as they may be seen
	Actions   []action
}

// gate shows what a product's gate asks.
func (h *handler) gate(w http.ResponseWriter, r *http.Request, caller access.Caller) (err error) {
	p := gatePageData{Product: r.PathValue("product"), Suppliers: map[string]string{}}
	products, err := h.cfg.Stages.Products.List(r.Context(), caller)
	if err != nil {
		return err
	}
	if p.Policy, err = h.cfg.Stages.Supply.Policy(r.Context(), caller, p.Product); err != nil {
		return err
	}
	if !slices.ContainsFunc(products, func(x product.Product) bool { return x.ID == p.Product }) {
		return fault.New(fault.NotFound, "product.unknown", fmt.Sprintf("no product %.80q", p.Product), "choose it from the page Supply gate")
	}
	for _, id := range p.Policy.SupplierIDs {
		s, err := h.cfg.Stages.Parts.Supplier(r.Context(), caller, id)
		if err == nil {
			p.Suppliers[id] = s.Name
		} else if unlessDenied(err) != nil {
			return err
		}
	}
	v := h.view(r, caller, "Supply gate", "supply. supplier.", p.Product)
	p.Actions = v.gateActions(p.Product, p.Policy)
	h.render(w, r, http.StatusOK, gatePage(v, p))
	return nil
}

// gateActions changes what a product's gate asks. Each says all of the policy, with what is changed.
func (v view) gateActions(product string, p supply.Policy) (out []action) {
	if !v.mayGate(product, p) {
		return nil
	}
	out = append(out, v.setGate(product, p, action{
		Label: "Change", Title: "What is asked of releases of " + product, Explain: "It holds for what is proposed and published from now on. ",
		Fields: []field{
			{Name: "mode", Label: "A release that does not pass", Kind: "one", Value: string(p.Mode), Options: []option{{"off", "is not looked at"}, {"warn", "goes on, and it is written down"}, {"enforce", "is not proposed"}}},
			{Name: "severity", Label: "A flaw stops it from this CVSS score on (0: 7)", Kind: "decimal", Value: strconv.FormatFloat(p.Severity, 'f', -1, 64)},
			{Name: "max_unknown", Label: "Of how many components nothing may be known", Kind: "number", Value: strconv.Itoa(p.MaxUnknown)},
			{Name: "advisory_days", Label: "Days that advisories may be old (0: 7)", Kind: "number", Value: strconv.Itoa(p.AdvisoryDays)},
			{Name: "min_advisories", Label: "How many advisories each ecosystem has to have (0: one)", Kind: "number", Value: strconv.Itoa(p.Advisories)},
			{Name: "vex_days", Label: "Days that an excuse holds (0: 180)", Kind: "number", Value: strconv.Itoa(p.ExceptionDays)},
			{Name: "supplier_ids", Label: "Suppliers that are allowed, by their IDs here, one a line", Kind: "lines", Value: lines(p.SupplierIDs), Optional: true},
			{Name: "suppliers", Label: "and by what bills of materials call them; none at all: anybody", Kind: "lines", Value: lines(p.Suppliers), Optional: true},
		},
	}))
	n := strconv.Itoa(len(p.Builders))
	more := p
	more.Builders = append(slices.Clone(p.Builders), supply.Builder{Keys: [][]byte{}, Sources: []string{}})
	return append(out, v.setGate(product, more, action{
		Label: "Believe a builder", Title: "Believe a builder's provenance", Explain: "Who holds these keys can say what a release was built from. ",
		Fields: []field{
			{Name: "builders." + n + ".id", Label: "The builder, as its provenance names it", Kind: "text"},
			{Name: "builders." + n + ".keys", Label: "Its public keys (PEM)", Kind: "pem"},
			{Name: "builders." + n + ".sources", Label: "What the source's address begins with, one a line", Kind: "lines"},
			{Name: "builders." + n + ".slsa_level", Label: "SLSA build level that you trust it for", Kind: "count", Options: []option{{"1", "1: it says how"}, {"2", "2: a service of its own"}, {"3", "3: nobody can reach into it"}}},
		},
	}))
}

func (v view) mayGate(product string, p supply.Policy) bool {
	return v.may(access.SupplyManage, access.Resource{Type: "product", ID: product, Product: product, Grave: p.Mode == supply.Enforce})
}

// dropBuilder believes a builder no more.
func (v view) dropBuilder(product string, p supply.Policy, at int) []action {
	if !v.mayGate(product, p) {
		return nil
	}
	fewer := p
	fewer.Builders = slices.Delete(slices.Clone(p.Builders), at, at+1)
	return []action{v.setGate(product, fewer, action{
		Label: "Believe no more", Title: "Believe " + p.Builders[at].ID + " no more", Typed: product, Tone: "bad", Explain: "Nothing that it builds passes from now on. What was published stays. ",
	})}
}

// setGate makes an action say a whole policy.
func (v view) setGate(product string, p supply.Policy, a action) action {
	a.Method, a.Path, a.Body = http.MethodPut, "/api/v1/products/"+pathEscape(product)+"/supply", policyBody(p)
	a.Explain += "It takes a new proof that it is you; and two people, while releases that do not pass are not proposed."
	return a
}

func policyBody(p supply.Policy) string {
	data, err := json.Marshal(p)
	if err != nil {
		return "" // strings, bytes and a number
	}
	return string(data)
}

// gateTone and its kind say what becomes of a release that does not pass.
func gateTone(m supply.Mode) string {
	switch m {
	case supply.Enforce:
		return "good"
	case supply.Warn:
		return "warn"
	case supply.Off:
	}
	return "bad"
}

func gateWords(m supply.Mode) string {
	switch m {
	case supply.Enforce:
		return "enforced"
	case supply.Warn:
		return "only warns"
	case supply.Off:
	}
	return "off"
}

func gateSentence(m supply.Mode) string {
	switch m {
	case supply.Enforce:
		return "A release that does not pass is not proposed. To ask for anything else takes two people."
	case supply.Warn:
		return "A release that does not pass goes on all the same, and it is written down. Its summary says FAILED."
	case supply.Off:
	}
	return "Nothing is looked at: of this product's releases nobody knows what they are made of, who built them and what is wrong with them. Begin with warnings, and enforce it when builds pass."
}

// failed are the codes of the steps that are not good.
func failed(d wire.GateDecision) (out []string) {
	for _, s := range d.Steps {
		if !s.OK {
			out = append(out, s.Code)
		}
	}
	return out
}

// keyName is a public key's ID.
func keyName(spki []byte) string {
	id := wire.KeyIDOfSPKI(spki)
	return hexOf(id[:])
}

// orDefault says what a number of a policy means, where 0 is another.
func orDefault(n, other int, what string) string {
	if n == 0 {
		n = other
	}
	return plural(n, what)
}

func score(p supply.Policy) string {
	if p.Severity == 0 {
		return "7"
	}
	return strconv.FormatFloat(p.Severity, 'f', -1, 64)
}

func whoSupplies(p supply.Policy) string {
	if n := len(p.SupplierIDs) + len(p.Suppliers); n > 0 {
		return number(n) + " allowed"
	}
	return "anybody"
}

func gateState(m supply.Mode) string {
	switch m {
	case supply.Enforce:
		return "enforced"
	case supply.Warn:
		return "only warning"
	case supply.Off:
	}
	return "off"
}

func decidedLink(j judged) templ.SafeURL {
	return templ.SafeURL("/decisions/" + strconv.FormatUint(j.Index, 10))
}

func decidedTone(j judged) string {
	switch {
	case j.Decision.OK:
		return "good"
	case j.WentOn:
		return "warn"
	}
	return "bad"
}

func decidedWords(j judged) string {
	n := len(failed(j.Decision))
	switch {
	case j.Decision.OK:
		return "It passed."
	case j.WentOn:
		return fmt.Sprintf("The gate warned, and the release was proposed: %s not good.", steps(n))
	}
	return fmt.Sprintf("Refused: there is no such release. %s not good.", steps(n))
}

// steps says how many steps of the gate are something.
func steps(n int) string {
	if n == 1 {
		return "1 step is"
	}
	return number(n) + " steps are"
}
