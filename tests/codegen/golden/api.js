/* eslint-disable */
/**
 * Written by `duly codegen` from the app 'tests.codegen.every'. Run it again rather than edit this.
 */

import { anyApi } from "convex/server";

export const api = anyApi;
