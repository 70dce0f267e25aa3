package client

import "github.com/hallmark-iot/hallmark/internal/httpapi"

// What the API takes and gives, for those who call it and do not serve it.
type (
	CommandRequest = httpapi.CommandRequest
	DevicePage     = httpapi.DevicePage
	Entry          = httpapi.Entry
	OrderRequest   = httpapi.OrderRequest
	ReleaseView    = httpapi.ReleaseView
	TokenSpec      = httpapi.TokenSpec
)

// MaxRecords bounds a record file, bytes.
const MaxRecords = httpapi.MaxRecords
