package console

import (
	"net/http"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/product"
)

func (h *handler) enrolments(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	waiting, err := h.cfg.Stages.Enrolments.Waitings(r.Context(), caller, "", "", r.URL.Query().Get("after"), pageSize+1)
	if err != nil {
		return err
	}
	next := ""
	if len(waiting) > pageSize {
		waiting = waiting[:pageSize]
		next = waiting[pageSize-1].Device
	}
	products, err := h.cfg.Stages.Products.List(r.Context(), caller)
	if unlessDenied(err) != nil {
		return err
	}
	h.render(w, r, http.StatusOK, enrolmentsPage(h.view(r, caller, "Enrolments", "enrolment. product. device.enrolled"), waiting, next, products))
	return nil
}

func waitingTone(w onboard.Waiting) string {
	switch w.State {
	case onboard.Approved:
		return "good"
	case onboard.Refused:
		return "bad"
	case onboard.Waits:
		return "busy"
	}
	return ""
}

func waitingWords(w onboard.Waiting) string {
	words := "a certificate"
	if w.Call == onboard.CallKeygen {
		words = "a key made by the server, and its certificate"
	}
	if w.Again {
		words += ", again"
	}
	return words
}

// decideEnrolment lets a device in, or does not.
func (v view) decideEnrolment(w onboard.Waiting) []action {
	if w.State != onboard.Waits || !v.may(access.DeviceAdmit, access.Resource{Type: "device", ID: w.Device, Product: w.Product, Group: w.Group}) {
		return nil
	}
	path, seen := "/api/v1/enrolments/"+pathEscape(w.Device)+"/", body(map[string]any{"request": w.Request})
	return []action{
		{
			Label: "Let it in", Title: "Let this device in with just this request", Path: path + "approve", Body: seen, Field: "reason",
			Explain: "Its production record is good already. It gets its certificate when it asks again; another request, with another key, would wait anew.",
		},
		{
			Label: "Refuse", Title: "Do not let this device in with this request", Path: path + "refuse", Body: seen, Field: "reason", Tone: "bad",
			Explain: "It is told so. It may ask with another request, which waits here.",
		},
	}
}

// setEnrolment changes how a product's devices are let in.
func (v view) setEnrolment(p product.Product) []action {
	if !v.may(access.ProductEnrolment, access.Resource{Type: "product", ID: p.ID, Product: p.ID}) {
		return nil
	}
	yes := func(name, label, no, yes string, now bool) field {
		value := "false"
		if now {
			value = "true"
		}
		return field{Name: name, Label: label, Kind: "json", Value: value, Options: []option{{"false", no}, {"true", yes}}}
	}
	return []action{{
		Label: "Change", Title: "How devices of " + p.ID + " are let in", Method: http.MethodPut, Path: "/api/v1/products/" + pathEscape(p.ID) + "/enrolment", Body: "{}",
		Explain: "It holds for requests from now on, and is a fact.",
		Fields: []field{
			{Name: "mode", Label: "A device with its factory identity is let in by", Kind: "one", Value: string(p.Enrolment.Mode), Options: []option{
				{string(product.Automatic), "its production record"}, {string(product.Approved), "its production record, and a person"},
			}},
			yes("server_keys", "Keys", "are made by the device", "may be made by the server, which is weaker", p.Enrolment.ServerKeys),
			yes("binding", "A request", "need not name its connection", "has to name the connection it comes by", p.Enrolment.Binding),
			yes("ocsp", "Certificates", "are in lists of revocations alone", "are answered for one by one, too (OCSP)", p.Enrolment.OCSP),
		},
	}}
}
