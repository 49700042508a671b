import type { ConnectError } from "@connectrpc/connect";
import { expect, it } from "vitest";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { errorDomain, reasonOf } from "./errors.ts";
import { demandEtag } from "./etag.ts";

it.each(["", " ", "*", "7", " 7 ", '"7"', '"6", "7"', '"6","7" , W/"8"'])(
  "lets %j change version 7",
  (wanted) => {
    expect(() => demandEtag(wanted, "7")).not.toThrow();
  },
);

it.each(["6", '"6"', 'W/"7"', '"77"', "7,", '"7', "**"])("does not let %j change version 7", (wanted) => {
  try {
    demandEtag(wanted, "7");
  } catch (error) {
    expect(reasonOf(error as ConnectError)).toBe("ETAG_MISMATCH");
    expect((error as ConnectError).findDetails(ErrorInfoSchema)[0]).toMatchObject({
      domain: errorDomain,
      metadata: { etag: "7" },
    });
    return;
  }
  throw new Error("it let it");
});
