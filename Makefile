GOBIN := $(CURDIR)/bin

.PHONY: generate
generate: ## make the Go code of proto/ (needs protoc)
	GOBIN=$(GOBIN) go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	PATH=$(GOBIN):$$PATH protoc --proto_path=proto --go_out=proto --go_opt=paths=source_relative proto/*.proto
